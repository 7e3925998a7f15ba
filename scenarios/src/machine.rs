//! The machine: its roofs, measured, and its description, read.

mod counters;
mod roofs;

use std::fs;

use cpu_kernels::Isa;

pub use counters::Misses;
pub use roofs::{Patience, evict, measure};

/// Worker threads when a scenario names none: one per physical core that this process may use.
pub fn default_threads() -> usize {
    let logical = std::thread::available_parallelism().map_or(1, |n| n.get());
    let siblings = fs::read_to_string("/sys/devices/system/cpu/cpu0/topology/thread_siblings_list").unwrap_or_default();
    let per_core = siblings.trim().split([',', '-']).filter(|s| !s.is_empty()).count().max(1);
    (logical / per_core).max(1)
}

/// Size of the last-level cache of CPU 0 in bytes, 0 when the system does not say.
pub fn llc_bytes() -> u64 {
    let size = |index: usize| {
        let text = fs::read_to_string(format!("/sys/devices/system/cpu/cpu0/cache/index{index}/size")).ok()?;
        let text = text.trim();
        let unit = match text.chars().last()? {
            'K' => 1 << 10,
            'M' => 1 << 20,
            _ => 1,
        };
        text.trim_end_matches(['K', 'M']).parse::<u64>().ok().map(|n| n * unit)
    };
    (0..8).filter_map(size).max().unwrap_or(0)
}

/// Memory that could be used without swapping, bytes.
pub fn available_memory() -> u64 {
    proc_kib("/proc/meminfo", "MemAvailable:").unwrap_or(u64::MAX >> 10) << 10
}

/// Peak resident memory of this process in bytes, 0 when the system does not say.
pub fn peak_rss() -> u64 {
    proc_kib("/proc/self/status", "VmHWM:").unwrap_or(0) << 10
}

fn proc_kib(file: &str, key: &str) -> Option<u64> {
    let text = fs::read_to_string(file).ok()?;
    text.lines().find_map(|line| line.strip_prefix(key))?.split_whitespace().next()?.parse().ok()
}

/// Facts about the machine for provenance: (key, value).
pub fn facts(threads: usize) -> Vec<(String, String)> {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |key: &str| {
        let value = cpuinfo
            .lines()
            .find(|l| l.starts_with(key))
            .and_then(|l| l.split_once(':'))
            .map(|(_, v)| v.trim().to_string());
        value.unwrap_or_else(|| "unknown".into())
    };
    let read = |file: &str| fs::read_to_string(file).map_or("not exposed".to_string(), |s| s.trim().to_string());
    let isas = Isa::available().iter().map(|i| i.name()).collect::<Vec<_>>().join(" ");
    let memory = proc_kib("/proc/meminfo", "MemTotal:").unwrap_or(0) << 10;
    [
        ("cpu_model", field("model name")),
        ("cpu_family_model_stepping", format!("{}/{}/{}", field("cpu family"), field("model\t"), field("stepping"))),
        ("cpu_logical", std::thread::available_parallelism().map_or(0, |n| n.get()).to_string()),
        ("threads", threads.to_string()),
        ("isa_available", isas),
        ("isa_best", Isa::best().name().into()),
        ("llc_bytes", llc_bytes().to_string()),
        ("memory_bytes", memory.to_string()),
        ("clock_mhz", field("cpu MHz")),
        ("governor", read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")),
        ("load_average", read("/proc/loadavg")),
        ("kernel", read("/proc/sys/kernel/osrelease")),
        ("os", std::env::consts::OS.into()),
        ("arch", std::env::consts::ARCH.into()),
        ("hardware_counters", counters::availability()),
        ("roof_method", roofs::METHOD.into()),
    ]
    .map(|(k, v)| (k.to_string(), v))
    .to_vec()
}

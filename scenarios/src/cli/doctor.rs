//! `doctor`: what this machine, this build and this environment can measure.

mod resolution;
mod selftest;

use std::path::{Path, PathBuf};

use clap::Args;
use cuda_kernels::{Gpu, Nvrtc};

use super::table::{bytes, table};
use super::{Outcome, PASS, find, print};
use crate::external::ExternalEngine;
use crate::external::adapter::{Adapter, Patience};
use crate::{library, machine};

/// The command `doctor`.
#[derive(Args)]
pub struct Doctor {
    /// Also measure memory bandwidth and arithmetic peaks (a few seconds)
    #[arg(long)]
    measure: bool,
    /// Python that has the other engines of a scenario (PyTorch, llama-cpp-python, Triton) [default: python3]
    #[arg(long, value_name = "PATH")]
    python: Option<PathBuf>,
    /// Measure the smallest slow-down that this machine tells, now: two copies of a counted loop, interleaved, for --seconds
    #[arg(long, conflicts_with_all = ["measure", "self_test"])]
    resolution: bool,
    /// How long --resolution measures
    #[arg(long, value_name = "SECONDS", default_value_t = 60.0, requires = "resolution", value_parser = resolution::seconds)]
    seconds: f64,
    /// Count false alarms, missed slow-downs and covering intervals of the statistics in thousands of forged runs (no clock is read)
    #[arg(long, conflicts_with = "measure")]
    self_test: bool,
}

impl Doctor {
    pub(super) fn obey(&self) -> Outcome {
        if self.self_test {
            return selftest::obey();
        }
        if self.resolution {
            return resolution::obey(self.seconds, &find::python(self.python.as_deref())?);
        }
        let python = find::python(self.python.as_deref())?;
        let threads = machine::default_threads();
        let facts = machine::facts(threads);
        let rows = facts.iter().map(|(key, value)| {
            let value = match (key.ends_with("_bytes"), value.parse()) {
                (true, Ok(n)) => bytes(n),
                _ => value.clone(),
            };
            vec![key.clone(), value]
        });
        print(&format!("Machine\n{}\n", table(&["fact", "value"], rows)))?;
        print(&format!("Embedded\n{}\n", embedded()))?;
        print(&format!("Other engines (--python {})\n{}\n", python.display(), engines(&python)))?;
        print(&format!("GPU\n{}\n", gpu()))?;
        let hub = match cfg!(feature = "hub") {
            true => {
                "hf:org/name@revision downloads into the Hugging Face cache (HF_ENDPOINT, HF_HOME, HF_TOKEN, HF_HUB_OFFLINE are honoured); not contacted now"
            }
            false => "this build cannot download; cargo feature `hub`",
        };
        print(&format!(
            "Elsewhere\n  hub   {hub}\n  report  one HTML file; any browser opens it, none is needed to write it\n\nAdvice\n"
        ))?;
        for advice in advice(&facts, threads) {
            print(&format!("  - {advice}\n"))?;
        }
        if self.measure {
            print(&measured(threads))?;
        }
        Ok(PASS)
    }
}

/// The CUDA compiler and the first device, or what is missing of them.
fn gpu() -> String {
    let compiler = Nvrtc::open();
    let compiler_says = match &compiler {
        Ok(nvrtc) => format!("NVRTC {}: kernels compile, and run on the emulated device", nvrtc.version()),
        Err(error) => error.to_string(),
    };
    let device = compiler.and_then(|nvrtc| {
        let gpu = Gpu::open(0, nvrtc)?;
        Ok((gpu.memory()?, gpu))
    });
    let device_says = match device {
        Ok((memory, gpu)) => format!(
            "{}, {}, {} multiprocessors, {} free of {}",
            gpu.name(),
            gpu.arch(),
            gpu.multiprocessors(),
            bytes(memory.free as u64),
            bytes(memory.total as u64)
        ),
        Err(error) => format!("{error}; cells on `cuda` are skipped, and claims that need one say `skipped-no-gpu`"),
    };
    let rows = [["compiler".to_string(), compiler_says], ["device 0".into(), device_says]];
    table(&["what", "state"], rows.map(Vec::from))
}

/// What each adapter says under `python`.
fn engines(python: &Path) -> String {
    let rows = ExternalEngine::ALL.map(|engine| {
        let said = match Adapter::start(engine, python, Patience::default()) {
            Ok(adapter) => adapter.version.clone(),
            Err(error) => error.to_string(),
        };
        vec![engine.name().to_string(), said]
    });
    table(&["engine", "version"], rows)
}

fn embedded() -> String {
    let models = library::checkpoints().iter().map(|m| {
        let sha = library::weights_sha256(m);
        vec![
            format!("embedded:{}", m.name),
            "checkpoint".into(),
            bytes(m.weights.len() as u64),
            format!("sha256 {}", &sha[..16]),
        ]
    });
    let texts = library::texts().iter().map(|t| {
        let text = t.joined();
        let hash = blake3::hash(text.as_bytes()).to_hex();
        vec![format!("embedded:{}", t.name), "text".into(), bytes(text.len() as u64), format!("blake3 {}", &hash[..16])]
    });
    let scenarios = vec![
        format!("{} scenarios", library::definitions().len()),
        "definition".into(),
        String::new(),
        "`infermark list`".into(),
    ];
    table(&["name", "kind", "size", "hash"], models.chain(texts).chain([scenarios]))
}

fn advice(facts: &[(String, String)], threads: usize) -> Vec<String> {
    let fact = |key: &str| facts.iter().find(|(k, _)| k == key).map_or("", |(_, v)| v.as_str());
    let mut advice = vec![];
    if !["performance", "not exposed"].contains(&fact("governor")) {
        advice.push(format!("the clock governor is `{}`: set it to `performance` before timing", fact("governor")));
    }
    if fact("governor") == "not exposed" {
        advice.push(
            "the system does not show what governs its clock (a virtual machine?): compare only within one run".into(),
        );
    }
    let load: f64 = fact("load_average").split(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0.0);
    if load > 0.5 {
        advice.push(format!(
            "load average {load}: something else runs here; timings will be noisy and the A/A cell will say so"
        ));
    }
    if fact("isa_best") == "scalar" {
        advice.push("no SIMD instruction set was found: speeds say little about real use".into());
    }
    advice
        .push(format!("{threads} worker threads by default, one per physical core; `threads` in [budget] changes it"));
    advice
}

fn measured(threads: usize) -> String {
    match machine::measure(threads, machine::Patience::Long) {
        Err(error) => format!("\nMeasured\n  {error}\n"),
        Ok(roof) => {
            let giga = |rate: f64, unit: &str| format!("{:.1} G{unit}", rate / 1e9);
            let rows = [
                ("memory read", giga(roof.stream_bytes_s, "B/s")),
                ("cache read", giga(roof.cache_bytes_s, "B/s")),
                ("f32 multiply-add", giga(roof.fma_flop_s, "FLOP/s")),
                ("int8 dot products", giga(roof.int8_op_s, "OP/s")),
            ];
            format!("\nMeasured\n{}", table(&["roof", "rate"], rows.map(|(name, rate)| vec![name.into(), rate])))
        }
    }
}

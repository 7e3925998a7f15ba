//! The processor's own counters of cache misses, where the machine shows them to this process.

/// Why there are none, or a counter of the calling thread.
pub use imp::Misses;

/// One line for provenance and `doctor`.
pub fn availability() -> String {
    match Misses::open() {
        Ok(_) => "last-level cache misses can be counted".into(),
        Err(why) => format!("none: {why}"),
    }
}

#[cfg(target_os = "linux")]
mod imp {
    use std::fs;
    use std::io::ErrorKind;

    use perf_event::events::Hardware;
    use perf_event::{Builder, Counter};

    /// Misses of the last-level cache by the calling thread, kernel excluded.
    pub struct Misses(Counter);

    impl Misses {
        /// Opens the counter; an error is a sentence for the reader.
        pub fn open() -> Result<Misses, String> {
            Builder::new(Hardware::CACHE_MISSES).build().map(Misses).map_err(|error| match error.kind() {
                ErrorKind::PermissionDenied => {
                    let file = "/proc/sys/kernel/perf_event_paranoid";
                    let level = fs::read_to_string(file).map_or("unknown".to_string(), |text| text.trim().to_string());
                    format!("{file} is {level}; a level of 2 or less lets a process count its own misses")
                }
                ErrorKind::NotFound => "the processor shows no counters here, as in most virtual machines".into(),
                _ => format!("the kernel refused to count: {error}"),
            })
        }

        /// Misses during `work`.
        pub fn during(&mut self, work: impl FnOnce()) -> Result<u64, String> {
            let failed = |error: std::io::Error| format!("the counter of cache misses failed: {error}");
            self.0.reset().map_err(failed)?;
            self.0.enable().map_err(failed)?;
            work();
            self.0.disable().map_err(failed)?;
            self.0.read().map_err(failed)
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod imp {
    /// Never made here.
    pub enum Misses {}

    impl Misses {
        /// Counting is written for Linux.
        pub fn open() -> Result<Misses, String> {
            Err("counting is written for Linux".into())
        }

        /// Cannot be reached.
        pub fn during(&mut self, _: impl FnOnce()) -> Result<u64, String> {
            match *self {}
        }
    }
}

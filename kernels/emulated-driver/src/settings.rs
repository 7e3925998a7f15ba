//! What a test wants of the device.

use crate::SETTINGS;

/// Properties of the device, and failures on request; a count of 0 is never.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Compute capability, major and minor.
    pub capability: (u32, u32),
    /// Devices.
    pub devices: u32,
    /// What `cuDriverGetVersion` says: 1000 · major + 10 · minor.
    pub version: u32,
    /// Device memory in bytes.
    pub memory: usize,
    /// Number of the allocation that fails.
    pub fail_alloc: u64,
    /// Number of the launch that fails.
    pub fail_launch: u64,
    /// Number of the launch that never ends.
    pub hang_launch: u64,
    /// Whether PTX is refused as well.
    pub refuse_ptx: bool,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            capability: (9, 0),
            devices: 1,
            version: 13_000,
            memory: 16 << 30,
            fail_alloc: 0,
            fail_launch: 0,
            hang_launch: 0,
            refuse_ptx: false,
        }
    }
}

impl Settings {
    /// What the environment says: all that reaches a test's children and theirs.
    pub fn of_environment() -> Result<Settings, String> {
        Settings::parse(&std::env::var_os(SETTINGS).unwrap_or_default().to_string_lossy())
    }

    fn parse(text: &str) -> Result<Settings, String> {
        let mut settings = Settings::default();
        for word in text.split_whitespace() {
            let (key, value) = word.split_once('=').ok_or(format!("`{word}`, expected key=value"))?;
            let number = || value.parse::<u64>().map_err(|_| format!("`{word}`, expected a number"));
            match key {
                "capability" => {
                    let digits = value.split_once('.').and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
                    settings.capability = digits.ok_or(format!("`{word}`, expected for example 9.0"))?;
                }
                "devices" => settings.devices = number()? as u32,
                "version" => settings.version = number()? as u32,
                "memory" => settings.memory = number()? as usize,
                "fail-alloc" => settings.fail_alloc = number()?,
                "fail-launch" => settings.fail_launch = number()?,
                "hang-launch" => settings.hang_launch = number()?,
                "refuse-ptx" => settings.refuse_ptx = number()? != 0,
                _ => return Err(format!("`{word}`: no such setting")),
            }
        }
        Ok(settings)
    }

    /// Shared memory that a block may have if it asks, bytes.
    pub fn most_shared(&self) -> u32 {
        match self.capability {
            (8, 0 | 7) => 163 << 10,
            (8, _) | (12, _) => 99 << 10,
            (9.., _) => 227 << 10,
            _ => 64 << 10,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_and_unknown_ones_refused() {
        let settings = Settings::parse("capability=8.6 memory=1000 hang-launch=3").unwrap();
        let expected = Settings { capability: (8, 6), memory: 1000, hang_launch: 3, ..Settings::default() };
        assert_eq!(settings, expected);
        assert_eq!(settings.most_shared(), 99 << 10);
        for wrong in ["capability=9", "colour=red", "memory", "memory=much"] {
            assert!(Settings::parse(wrong).is_err(), "{wrong}");
        }
    }
}

//! Limits under which a run recommends one of its cells: what may be lost, and what memory there is.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, Visitor};

/// The table `[choose]`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Choose {
    /// Most that perplexity may grow against the reference, as a share: `"2%"` or `0.02`.
    #[serde(default = "two_percent", deserialize_with = "share")]
    pub max_loss: f64,
    /// Most memory of the process at its peak, bytes: `"300MiB"`, or a number of bytes. Absent: all that there is.
    #[serde(default, deserialize_with = "bytes")]
    pub max_memory: Option<u64>,
    /// Which speed decides among the cells that keep both limits.
    #[serde(default)]
    pub speed: Speed,
}

/// A speed that decides.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Speed {
    /// Tokens generated per second.
    #[default]
    Generation,
    /// Tokens of a prompt read per second.
    Prompt,
}

impl Speed {
    /// Its word in TOML.
    pub fn word(self) -> &'static str {
        match self {
            Speed::Generation => "generation",
            Speed::Prompt => "prompt",
        }
    }
}

fn two_percent() -> f64 {
    0.02
}

/// `2%`, `2 %` or `0.02` as a share.
pub fn share_of(text: &str) -> Result<f64, String> {
    let text = text.trim();
    let (number, scale) = text.strip_suffix('%').map_or((text, 1.0), |number| (number.trim(), 100.0));
    let share = number.parse::<f64>().ok().map(|value| value / scale).filter(|share| is_share(*share));
    share.ok_or_else(|| format!("{text:?} is no share; expected a percentage from 0% to 1000%, such as 2% (or 0.02)"))
}

fn is_share(share: f64) -> bool {
    (0.0..=10.0).contains(&share)
}

/// `300MiB`, `1.5 GiB`, `2GB` or `1048576` as bytes.
pub fn bytes_of(text: &str) -> Result<u64, String> {
    const UNITS: [(&str, f64); 9] = [
        ("KiB", 1024.0),
        ("MiB", 1048576.0),
        ("GiB", 1073741824.0),
        ("TiB", 1099511627776.0),
        ("kB", 1e3),
        ("KB", 1e3),
        ("MB", 1e6),
        ("GB", 1e9),
        ("TB", 1e12),
    ];
    let text = text.trim();
    let unit = UNITS.iter().find_map(|(unit, scale)| Some((text.strip_suffix(unit)?, *scale)));
    let (number, scale) = unit.or_else(|| Some((text.strip_suffix('B')?, 1.0))).unwrap_or((text, 1.0));
    let value = number.trim().parse::<f64>().ok().map(|number| number * scale).filter(|n| (1.0..1e18).contains(n));
    value.map(|n| n as u64).ok_or_else(|| {
        format!("{text:?} is no amount of memory; expected a number with its unit, such as 300MiB or 2GB")
    })
}

struct Share;

impl Visitor<'_> for Share {
    type Value = f64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a share such as \"2%\" or 0.02")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<f64, E> {
        share_of(text).map_err(E::custom)
    }

    fn visit_f64<E: Error>(self, share: f64) -> Result<f64, E> {
        if is_share(share) {
            return Ok(share);
        }
        Err(E::custom(format!("{share} is no share from 0 to 10; write 0.02 or \"2%\" for two percent")))
    }

    fn visit_i64<E: Error>(self, share: i64) -> Result<f64, E> {
        self.visit_f64(share as f64)
    }
}

fn share<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    deserializer.deserialize_any(Share)
}

struct Bytes;

impl Visitor<'_> for Bytes {
    type Value = Option<u64>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an amount of memory such as \"300MiB\", or a number of bytes")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Option<u64>, E> {
        bytes_of(text).map(Some).map_err(E::custom)
    }

    fn visit_i64<E: Error>(self, bytes: i64) -> Result<Option<u64>, E> {
        u64::try_from(bytes)
            .ok()
            .filter(|n| *n > 0)
            .map(Some)
            .ok_or_else(|| E::custom(format!("{bytes} bytes are no memory; write \"300MiB\" or a number of bytes")))
    }
}

fn bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    deserializer.deserialize_any(Bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_as_people_write_them() {
        assert_eq!([share_of("2%"), share_of(" 0.5 %"), share_of("0.02")], [Ok(0.02), Ok(0.005), Ok(0.02)]);
        assert!(share_of("two").is_err() && share_of("-1%").is_err() && share_of("NaN").is_err());
        let known = ["300MiB", "1.5 GiB", "2GB", "512 B", "1048576"].map(bytes_of);
        assert_eq!(known, [Ok(300 << 20), Ok(3 << 29), Ok(2_000_000_000), Ok(512), Ok(1 << 20)]);
        assert!(bytes_of("much").is_err() && bytes_of("0").is_err() && bytes_of("-3MiB").is_err());
    }

    #[test]
    fn the_table_has_defaults_and_refuses_what_is_no_limit() {
        let parse = |text: &str| toml::from_str::<Choose>(text);
        let plain = parse("").expect("every limit has a default");
        assert_eq!(plain, Choose { max_loss: 0.02, max_memory: None, speed: Speed::Generation });
        let all = parse("max_loss = \"5%\"\nmax_memory = \"1GiB\"\nspeed = \"prompt\"").expect("limits");
        assert_eq!(all, Choose { max_loss: 0.05, max_memory: Some(1 << 30), speed: Speed::Prompt });
        for wrong in ["max_loss = \"much\"", "max_memory = 0", "max_los = 0.1", "speed = \"fast\"", "max_loss = 20.0"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}

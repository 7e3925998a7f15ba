//! `hf:org/name@revision`: the Hugging Face hub, its cache folder and its environment variables.
//!
//! The cache is laid out as the Python library lays it out, so either finds what the other downloaded. A revision that
//! is in the cache is used without asking the network whether it moved: the commit is what a run records.

#[cfg(feature = "hub")]
mod download;
#[cfg(all(test, feature = "hub"))]
mod tests;

use std::path::PathBuf;

use super::Hub;
use crate::EngineError;

/// Where the hub is and where its files are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubClient {
    /// `HF_ENDPOINT`, else the public hub.
    pub endpoint: String,
    /// `HF_HUB_CACHE`, else `HF_HOME/hub`, else `~/.cache/huggingface/hub`.
    pub cache: PathBuf,
    /// `HF_TOKEN`, else the file `HF_TOKEN_PATH` or `HF_HOME/token`.
    pub token: Option<String>,
    /// `HF_HUB_OFFLINE`: only the cache is used.
    pub offline: bool,
}

impl HubClient {
    /// Reads the variables that the Python library reads. They say where bytes come from, not what they are: weights
    /// are checked against the hub's sha256 and recorded by it.
    #[allow(clippy::disallowed_methods)]
    pub fn from_environment() -> HubClient {
        HubClient::from_variables(&|name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from))
    }

    fn from_variables(variable: &dyn Fn(&str) -> Option<PathBuf>) -> HubClient {
        let text =
            |name: &str| variable(name).map(|v| v.to_string_lossy().trim().to_string()).filter(|v| !v.is_empty());
        let caches = variable("XDG_CACHE_HOME").or_else(|| variable("HOME").map(|home| home.join(".cache")));
        let home = variable("HF_HOME").unwrap_or_else(|| caches.unwrap_or_else(|| ".cache".into()).join("huggingface"));
        let token_file = variable("HF_TOKEN_PATH").unwrap_or_else(|| home.join("token"));
        let token = text("HF_TOKEN").or_else(|| std::fs::read_to_string(token_file).ok().map(|t| t.trim().to_string()));
        let yes = |value: String| ["1", "ON", "YES", "TRUE"].contains(&value.to_uppercase().as_str());
        HubClient {
            endpoint: text("HF_ENDPOINT").map_or("https://huggingface.co".into(), |e| e.trim_end_matches('/').into()),
            cache: variable("HF_HUB_CACHE").unwrap_or_else(|| home.join("hub")),
            token: token.filter(|t| !t.is_empty()),
            offline: text("HF_HUB_OFFLINE").is_some_and(yes),
        }
    }
}

impl Hub for HubClient {
    #[cfg(feature = "hub")]
    fn fetch(&self, repo: &str, revision: &str) -> Result<PathBuf, EngineError> {
        download::fetch(self, repo, revision)
    }

    #[cfg(not(feature = "hub"))]
    fn fetch(&self, repo: &str, revision: &str) -> Result<PathBuf, EngineError> {
        Err(EngineError::Hub {
            repo: repo.into(),
            revision: revision.into(),
            problem: "this build cannot download: build it with the cargo feature `hub`, or name a folder on disk"
                .into(),
        })
    }
}

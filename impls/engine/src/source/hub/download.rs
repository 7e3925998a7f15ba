//! Brings the files of a revision into the cache through the `hf-hub` crate, all from one commit, weights checked.

use std::fs::{self, File};
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use hf_hub::api::sync::{Api, ApiBuilder, ApiError, Metadata};
use hf_hub::{Cache, CacheRepo, Repo, RepoType};

use super::HubClient;
use crate::EngineError;
use crate::source::sha256_of;

/// Attempts per file; each continues where the one before stopped.
const ATTEMPTS: usize = 3;
const INDEX: &str = "model.safetensors.index.json";
const SINGLE: &str = "model.safetensors";

/// Files beside the weights that change what is read, written or counted.
const SIDE: [&str; 10] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "generation_config.json",
    "chat_template.jinja",
    "chat_template.json",
    "quantize_config.json",
    "quant_config.json",
    "quantization_config.json",
];

/// Folder with config.json, tokenizer.json and the weights of `repo` at `revision`.
pub(super) fn fetch(client: &HubClient, repo: &str, revision: &str) -> Result<PathBuf, EngineError> {
    let fetch = Fetch { client, repo, revision };
    if let Some(cached) = fetch.cached_commit()
        && let Some(files) = fetch.complete(&cached)?
    {
        fetch.verify_all(&cached, &files)?;
        fetch.complete_side_files(&cached)?;
        return Ok(fetch.snapshot(&cached));
    }
    if client.offline {
        return Err(fetch.error(format!(
            "not complete in the cache {} and HF_HUB_OFFLINE is set; unset it, or download the revision first",
            client.cache.display()
        )));
    }
    fetch.download()
}

struct Fetch<'a> {
    client: &'a HubClient,
    repo: &'a str,
    revision: &'a str,
}

impl Fetch<'_> {
    fn error(&self, problem: String) -> EngineError {
        EngineError::Hub { repo: self.repo.into(), revision: self.revision.into(), problem }
    }

    fn at(&self, revision: &str) -> Repo {
        Repo::with_revision(self.repo.into(), RepoType::Model, revision.into())
    }

    fn cache(&self, revision: &str) -> CacheRepo {
        Cache::new(self.client.cache.clone()).repo(self.at(revision))
    }

    fn folder(&self) -> PathBuf {
        self.client.cache.join(self.at("main").folder_name())
    }

    fn snapshot(&self, commit: &str) -> PathBuf {
        self.folder().join("snapshots").join(commit)
    }

    /// The commit that the cache knows under the revision's name.
    fn cached_commit(&self) -> Option<String> {
        if is_hex(self.revision, 40) {
            return Some(self.revision.into());
        }
        let commit = fs::read_to_string(self.folder().join("refs").join(self.revision)).ok()?.trim().to_string();
        is_hex(&commit, 40).then_some(commit)
    }

    /// Names of the weight files of a snapshot, when it has everything.
    fn complete(&self, commit: &str) -> Result<Option<Vec<String>>, EngineError> {
        let has = |name: &str| self.snapshot(commit).join(name).is_file();
        if !has("config.json") || !self.is_known(commit, "tokenizer.json") {
            return Ok(None);
        }
        if has(SINGLE) {
            return Ok(Some(vec![SINGLE.into()]));
        }
        if !has(INDEX) {
            return Ok(None);
        }
        let shards = self.shards(&self.snapshot(commit).join(INDEX))?;
        Ok(shards.iter().all(|shard| has(shard)).then_some(shards))
    }

    /// Whether the cache has the file, or knows that the commit has none.
    fn is_known(&self, commit: &str, name: &str) -> bool {
        self.snapshot(commit).join(name).is_file() || self.absence(commit, name).is_file()
    }

    /// Asks for the small files that whoever filled the cache did not ask for; without a network the cache is what there is.
    fn complete_side_files(&self, commit: &str) -> Result<(), EngineError> {
        let unknown: Vec<&str> = SIDE.into_iter().filter(|name| !self.is_known(commit, name)).collect();
        if unknown.is_empty() || self.client.offline {
            return Ok(());
        }
        let api = self.api()?;
        for name in unknown {
            self.get(&api, commit, name)?;
        }
        Ok(())
    }

    /// The Python library's note that a commit lacks a file.
    fn absence(&self, commit: &str, name: &str) -> PathBuf {
        self.folder().join(".no_exist").join(commit).join(name)
    }

    fn api(&self) -> Result<Api, EngineError> {
        let builder = ApiBuilder::from_cache(Cache::new(self.client.cache.clone()));
        // its own retries restart a resumed part file at the wrong place, so attempts are made here
        let builder =
            builder.with_endpoint(self.client.endpoint.clone()).with_token(self.client.token.clone()).with_retries(0);
        builder.build().map_err(|e| self.error(format!("cannot start the client: {e}")))
    }

    fn download(&self) -> Result<PathBuf, EngineError> {
        let api = self.api()?;
        let first = self.metadata(&api, self.revision, "config.json")?;
        let commit = first
            .ok_or_else(|| self.error("there is no config.json; it is not a model repository".into()))?
            .commit_hash()
            .to_string();
        if !is_hex(&commit, 40) {
            return Err(self.error(format!("the hub names the commit `{commit}`, which is not a commit hash")));
        }
        self.get(&api, &commit, "config.json")?;
        for name in SIDE {
            self.get(&api, &commit, name)?;
        }
        if !self.get(&api, &commit, SINGLE)? {
            if !self.get(&api, &commit, INDEX)? {
                return Err(self.error(format!(
                    "it has neither {SINGLE} nor {INDEX}; choose a repository with safetensors weights"
                )));
            }
            for shard in self.shards(&self.snapshot(&commit).join(INDEX))? {
                if !self.get(&api, &commit, &shard)? {
                    return Err(self.error(format!("{INDEX} names `{shard}`, which the repository does not have")));
                }
            }
        }
        let keep = |source| EngineError::Io { file: self.folder().join("refs"), source };
        self.cache(self.revision).create_ref(&commit).map_err(keep)?;
        Ok(self.snapshot(&commit))
    }

    /// What the hub says about a file; `None` when there is no such file.
    fn metadata(&self, api: &Api, revision: &str, name: &str) -> Result<Option<Metadata>, EngineError> {
        let url = api.repo(self.at(revision)).url(name);
        let metadata = match self.attempt(|| api.metadata(&url)) {
            Ok(metadata) => metadata,
            // a missing config.json means a missing repository or revision, to be said as such
            Err(error) if status(&error) == Some(404) && name != "config.json" => return Ok(None),
            Err(error) => return Err(self.error(self.explain(name, &error))),
        };
        // the client uses the tag as a file name
        let tag = metadata.etag();
        if tag.is_empty() || !tag.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_') {
            return Err(self.error(format!("{name}: the hub's ETag `{tag}` cannot name a file of the cache")));
        }
        Ok(Some(metadata))
    }

    /// Makes `name` present in the snapshot and checks it; false when the hub does not have it.
    fn get(&self, api: &Api, commit: &str, name: &str) -> Result<bool, EngineError> {
        if self.snapshot(commit).join(name).is_file() {
            self.verify(commit, name)?;
            return Ok(true);
        }
        let Some(metadata) = self.metadata(api, commit, name)? else {
            // the note only saves a question next time
            let note = self.absence(commit, name);
            let _ = note.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| File::create(&note));
            return Ok(false);
        };
        let blob = self.cache(commit).blob_path(metadata.etag());
        // a part file that is already whole would be asked to continue after its end
        let part = blob.with_extension("part");
        if fs::metadata(&part).is_ok_and(|part| part.len() >= metadata.size() as u64) {
            let _ = fs::remove_file(&part);
        }
        self.attempt(|| api.repo(self.at(commit)).download(name))
            .map_err(|error| self.error(self.explain(name, &error)))?;
        let found = fs::metadata(&blob).map_or(0, |file| file.len());
        if found != metadata.size() as u64 {
            self.discard(commit, name, &blob);
            return Err(self.error(format!(
                "{name}: {found} bytes arrived, the hub announced {}; the file is deleted, try again",
                metadata.size()
            )));
        }
        self.verify(commit, name)?;
        Ok(true)
    }

    /// Runs one request, again where the connection broke.
    fn attempt<T>(&self, mut request: impl FnMut() -> Result<T, ApiError>) -> Result<T, ApiError> {
        let mut tries = 0;
        loop {
            tries += 1;
            // hf-hub panics on a redirect without a place to go to
            let outcome =
                catch_unwind(AssertUnwindSafe(&mut request)).unwrap_or(Err(ApiError::MissingHeader("Location")));
            match outcome {
                Err(error) if tries < ATTEMPTS && broken(&error) => continue,
                outcome => return outcome,
            }
        }
    }

    fn explain(&self, name: &str, error: &ApiError) -> String {
        let endpoint = &self.client.endpoint;
        match status(error) {
            Some(401 | 403) if self.client.token.is_none() => format!(
                "{name}: {endpoint} wants to know who asks; set HF_TOKEN to a token that may read the repository"
            ),
            Some(401 | 403) => format!(
                "{name}: {endpoint} refuses this token; accept the model's licence on its page, or use a token that may read it"
            ),
            Some(404) => format!(
                "{name}: {endpoint} has no such repository, revision or file; check the spelling of org/name@revision"
            ),
            Some(code) => format!("{name}: {endpoint} answered with status {code}; try again later"),
            None => format!(
                "{name}: {endpoint} does not deliver: {error}; check the network and HF_ENDPOINT, then run again: what has arrived is kept (HF_HUB_OFFLINE=1 makes do with that)"
            ),
        }
    }

    fn shards(&self, index: &Path) -> Result<Vec<String>, EngineError> {
        #[derive(serde::Deserialize)]
        struct Index {
            weight_map: std::collections::BTreeMap<String, String>,
        }
        let text = fs::read_to_string(index).map_err(|source| EngineError::Io { file: index.into(), source })?;
        let parsed: Index = serde_json::from_str(&text).map_err(|e| self.error(format!("{INDEX}: {e}")))?;
        let mut shards: Vec<String> = parsed.weight_map.into_values().collect();
        shards.sort();
        shards.dedup();
        let plain = |name: &String| {
            !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\\', ':', '?', '#', '%'])
        };
        match shards.iter().find(|name| !plain(name)) {
            Some(name) => Err(self.error(format!("{INDEX} names the file `{name}`; shards must lie beside it"))),
            None => Ok(shards),
        }
    }

    fn verify_all(&self, commit: &str, names: &[String]) -> Result<(), EngineError> {
        names.iter().try_for_each(|name| self.verify(commit, name))
    }

    /// Checks a file that the hub keeps in large-file storage against the sha256 that is its tag, once per blob.
    fn verify(&self, commit: &str, name: &str) -> Result<(), EngineError> {
        let pointer = self.snapshot(commit).join(name);
        let io = |source| EngineError::Io { file: pointer.clone(), source };
        let blob = fs::canonicalize(&pointer).map_err(io)?;
        let tag = blob.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let note = self.folder().join(".verified").join(&tag);
        if !is_hex(&tag, 64) || note.is_file() {
            return Ok(());
        }
        let digest = sha256_of(&mut File::open(&blob).map_err(io)?).map_err(io)?;
        if digest != tag {
            self.discard(commit, name, &blob);
            return Err(self.error(format!(
                "{name}: sha256 is {digest}, the hub says {tag}; the file is deleted, run again to download it anew"
            )));
        }
        // without the note the file is only hashed again next time
        let _ = note.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| File::create(&note)?.write_all(b""));
        Ok(())
    }

    fn discard(&self, commit: &str, name: &str, blob: &Path) {
        // whatever stays is found wrong again by the next verification
        let _ = fs::remove_file(self.snapshot(commit).join(name));
        let _ = fs::remove_file(blob);
    }
}

fn is_hex(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|b| b.is_ascii_hexdigit())
}

fn status(error: &ApiError) -> Option<u16> {
    match error {
        ApiError::RequestError(inner) => match **inner {
            ureq::Error::StatusCode(code) => Some(code),
            _ => None,
        },
        _ => None,
    }
}

/// Whether the connection, not the answer, was the problem.
fn broken(error: &ApiError) -> bool {
    match error {
        ApiError::IoError(_) => true,
        ApiError::RequestError(_) => status(error).is_none_or(|code| code >= 500),
        _ => false,
    }
}

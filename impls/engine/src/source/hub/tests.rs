//! Against a local server that speaks the hub's URLs: metadata, redirect to storage, ranges, broken connections.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};

use super::HubClient;
use crate::source::{Hub, sha256_of};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// What the server has and how it misbehaves.
#[derive(Default)]
struct Site {
    /// Files of `org/tiny`.
    files: BTreeMap<String, Vec<u8>>,
    /// File whose first complete answer stops after this many bytes.
    breaks: Option<(String, usize)>,
    /// File whose announced sha256 is not its own.
    wrong: Option<String>,
    /// Wants this token.
    token: Option<String>,
    /// Requests seen: (path, range).
    seen: Vec<(String, String)>,
}

struct Server {
    site: Arc<Mutex<Site>>,
    client: HubClient,
    _cache: tempfile::TempDir,
}

impl Server {
    fn start(site: Site) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let endpoint = format!("http://{}", listener.local_addr().expect("bound"));
        let site = Arc::new(Mutex::new(site));
        let (shared, here) = (site.clone(), endpoint.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                answer(stream, &here, &shared);
            }
        });
        let cache = tempfile::tempdir().expect("a temporary folder");
        let client = HubClient { endpoint, cache: cache.path().join("hub"), token: None, offline: false };
        Server { site, client, _cache: cache }
    }

    fn fetch(&self) -> Result<std::path::PathBuf, String> {
        self.client.fetch("org/tiny", "main").map_err(|e| e.to_string())
    }

    fn requests(&self) -> usize {
        self.site.lock().expect("no panic").seen.len()
    }
}

fn sha(bytes: &[u8]) -> String {
    sha256_of(&mut &*bytes).expect("memory")
}

/// Reads one request, writes one answer, closes.
fn answer(mut stream: TcpStream, here: &str, site: &Mutex<Site>) {
    let mut reader = BufReader::new(stream.try_clone().expect("a second handle"));
    let (mut line, mut range, mut token) = (String::new(), String::new(), String::new());
    reader.read_line(&mut line).expect("a request");
    let path = line.split(' ').nth(1).unwrap_or("/").to_string();
    loop {
        let mut header = String::new();
        if reader.read_line(&mut header).unwrap_or(0) == 0 || header.trim().is_empty() {
            break;
        }
        let (name, value) = header.split_once(':').unwrap_or((&header, ""));
        match name.to_lowercase().as_str() {
            "range" => range = value.trim().into(),
            "authorization" => token = value.trim().trim_start_matches("Bearer ").into(),
            _ => {}
        }
    }
    let mut site = site.lock().expect("no panic");
    site.seen.push((path.clone(), range.clone()));
    let send = |stream: &mut TcpStream, head: String, body: &[u8]| {
        let _ = stream.write_all(format!("HTTP/1.1 {head}\r\nConnection: close\r\n\r\n").as_bytes());
        let _ = stream.write_all(body);
    };
    if site.token.as_ref().is_some_and(|wanted| *wanted != token) {
        return send(&mut stream, "401 Unauthorized\r\nContent-Length: 0".into(), b"");
    }
    let storage = path.starts_with("/storage/");
    let name = path.rsplit('/').next().unwrap_or("").to_string();
    let known = storage
        || path.starts_with("/org/tiny/resolve/main/")
        || path.starts_with(&format!("/org/tiny/resolve/{COMMIT}/"));
    let Some(body) = site.files.get(&name).filter(|_| known).cloned() else {
        return send(&mut stream, "404 Not Found\r\nContent-Length: 0".into(), b"");
    };
    let large = name.ends_with(".safetensors");
    let mut tag = if large { sha(&body) } else { format!("{:040x}", body.len()) };
    if site.wrong.as_ref() == Some(&name) {
        tag = sha(b"something else");
    }
    if large && !storage {
        let head = format!(
            "302 Found\r\nLocation: {here}/storage/{name}\r\nX-Repo-Commit: {COMMIT}\r\nX-Linked-Etag: \"{tag}\"\r\nETag: \"other\"\r\nContent-Length: 0"
        );
        return send(&mut stream, head, b"");
    }
    let (from, to) = range.trim_start_matches("bytes=").split_once('-').unwrap_or(("0", ""));
    let from: usize = from.parse().unwrap_or(0);
    let to = to.parse().map_or(body.len(), |to: usize| (to + 1).min(body.len()));
    if from >= to {
        return send(&mut stream, "416 Range Not Satisfiable\r\nContent-Length: 0".into(), b"");
    }
    let head = format!(
        "206 Partial Content\r\nX-Repo-Commit: {COMMIT}\r\nETag: \"{tag}\"\r\nContent-Range: bytes {from}-{}/{}\r\nContent-Length: {}",
        to - 1,
        body.len(),
        to - from
    );
    let cut = match site.breaks.take_if(|(file, _)| *file == name && to - from > 1) {
        Some((_, after)) => (from + after).min(to),
        None => to,
    };
    send(&mut stream, head, &body[from..cut]);
}

fn tiny() -> BTreeMap<String, Vec<u8>> {
    let weights: Vec<u8> = (0..50_000u32).map(|i| (i * 7 % 251) as u8).collect();
    [("config.json", b"{}".to_vec()), ("tokenizer.json", b"{\"a\":1}".to_vec()), ("model.safetensors", weights)]
        .map(|(name, bytes)| (name.to_string(), bytes))
        .into()
}

fn read(folder: &Path, name: &str) -> Vec<u8> {
    std::fs::read(folder.join(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

#[test]
fn a_revision_is_downloaded_once_and_found_offline() {
    let server = Server::start(Site { files: tiny(), ..Site::default() });
    let folder = server.fetch().expect("served");
    assert!(folder.ends_with(Path::new("snapshots").join(COMMIT)), "{}", folder.display());
    for (name, bytes) in tiny() {
        assert_eq!(read(&folder, &name), bytes, "{name}");
    }
    let requests = server.requests();
    let offline = HubClient { offline: true, ..server.client.clone() };
    assert_eq!(offline.fetch("org/tiny", "main").expect("cached"), folder);
    assert_eq!(offline.fetch("org/tiny", COMMIT).expect("cached by its commit"), folder);
    assert_eq!(server.fetch().expect("cached"), folder);
    assert_eq!(server.requests(), requests, "the cache needs no network");
}

#[test]
fn shards_are_followed_and_a_missing_tokenizer_is_remembered() {
    let mut files = tiny();
    let whole = files.remove("model.safetensors").expect("tiny has it");
    files.remove("tokenizer.json");
    files.insert("a-1-of-2.safetensors".into(), whole[..20_000].to_vec());
    files.insert("a-2-of-2.safetensors".into(), whole[20_000..].to_vec());
    let index = r#"{"weight_map":{"x":"a-1-of-2.safetensors","y":"a-2-of-2.safetensors","z":"a-1-of-2.safetensors"}}"#;
    files.insert("model.safetensors.index.json".into(), index.into());
    let server = Server::start(Site { files, ..Site::default() });
    let folder = server.fetch().expect("served");
    assert_eq!([read(&folder, "a-1-of-2.safetensors"), read(&folder, "a-2-of-2.safetensors")].concat(), whole);
    assert!(!folder.join("tokenizer.json").exists());
    let offline = HubClient { offline: true, ..server.client.clone() };
    assert_eq!(offline.fetch("org/tiny", "main").expect("complete without a tokenizer"), folder);
}

#[test]
fn an_index_may_not_name_files_elsewhere() {
    let mut files = tiny();
    files.remove("model.safetensors");
    files.insert("model.safetensors.index.json".into(), br#"{"weight_map":{"x":"../../evil.safetensors"}}"#.to_vec());
    let server = Server::start(Site { files, ..Site::default() });
    let error = server.fetch().expect_err("refused");
    assert!(error.contains("../../evil.safetensors"), "{error}");
}

#[test]
fn a_broken_download_continues_where_it_stopped() {
    let breaks = Some(("model.safetensors".to_string(), 30_000));
    let server = Server::start(Site { files: tiny(), breaks, ..Site::default() });
    let folder = server.fetch().expect("the second attempt finishes");
    assert_eq!(read(&folder, "model.safetensors"), tiny()["model.safetensors"]);
    let seen = &server.site.lock().expect("no panic").seen;
    assert!(
        seen.iter().any(|(path, range)| path == "/storage/model.safetensors" && range == "bytes=30000-"),
        "{seen:?}"
    );
}

#[test]
fn a_part_file_of_an_earlier_run_is_continued_or_replaced() {
    for kept in [10_000, 50_000, 60_000] {
        let server = Server::start(Site { files: tiny(), ..Site::default() });
        let weights = &tiny()["model.safetensors"];
        let blobs = server.client.cache.join("models--org--tiny").join("blobs");
        std::fs::create_dir_all(&blobs).expect("writable");
        let part: Vec<u8> = weights.iter().copied().chain(vec![0; 20_000]).take(kept).collect();
        std::fs::write(blobs.join(sha(weights)).with_extension("part"), part).expect("writable");
        let folder = server.fetch().expect("served");
        assert_eq!(read(&folder, "model.safetensors"), *weights, "{kept}");
    }
}

#[test]
fn a_wrong_hash_deletes_the_file() {
    let server = Server::start(Site { files: tiny(), wrong: Some("model.safetensors".into()), ..Site::default() });
    let error = server.fetch().expect_err("refused");
    assert!(error.contains("sha256") && error.contains("model.safetensors") && error.contains("deleted"), "{error}");
    let folder = server.client.cache.join("models--org--tiny");
    assert!(!folder.join("snapshots").join(COMMIT).join("model.safetensors").exists());
    assert!(!folder.join("blobs").join(sha(b"something else")).exists());
    server.site.lock().expect("no panic").wrong = None;
    server.fetch().expect("repaired by running again");
}

#[test]
fn a_cached_file_that_rotted_is_found_and_replaced() {
    let server = Server::start(Site { files: tiny(), ..Site::default() });
    let folder = server.fetch().expect("served");
    let blob = std::fs::canonicalize(folder.join("model.safetensors")).expect("a link");
    std::fs::write(&blob, b"rotten").expect("writable");
    std::fs::remove_dir_all(server.client.cache.join("models--org--tiny").join(".verified")).expect("it was verified");
    assert!(server.fetch().expect_err("refused").contains("sha256"));
    let folder = server.fetch().expect("downloaded anew");
    assert_eq!(read(&folder, "model.safetensors"), tiny()["model.safetensors"]);
}

#[test]
fn refusals_say_what_to_do() {
    let server = Server::start(Site { files: tiny(), token: Some("secret".into()), ..Site::default() });
    assert!(server.fetch().expect_err("no token").contains("HF_TOKEN"));
    let wrong = HubClient { token: Some("other".into()), ..server.client.clone() };
    assert!(wrong.fetch("org/tiny", "main").expect_err("wrong token").to_string().contains("licence"));
    let right = HubClient { token: Some("secret".into()), ..server.client.clone() };
    right.fetch("org/tiny", "main").expect("the right token");

    let error = right.fetch("org/absent", "main").expect_err("no such repository").to_string();
    assert!(error.contains("hf:org/absent@main") && error.contains("spelling"), "{error}");
    let offline = HubClient { offline: true, ..right.clone() };
    let error = offline.fetch("org/absent", "main").expect_err("offline").to_string();
    assert!(error.contains("HF_HUB_OFFLINE"), "{error}");
    let nobody = HubClient { endpoint: "http://127.0.0.1:9".into(), ..right };
    let error = nobody.fetch("org/absent", "main").expect_err("nobody listens").to_string();
    assert!(error.contains("HF_ENDPOINT"), "{error}");
}

#[test]
fn variables_mean_what_the_python_library_means() {
    let client = |pairs: &[(&str, &str)]| {
        let find = |name: &str| pairs.iter().find(|(n, _)| *n == name).map(|(_, v)| std::path::PathBuf::from(v));
        HubClient::from_variables(&find)
    };
    let plain = client(&[("HOME", "/h")]);
    assert_eq!(plain.endpoint, "https://huggingface.co");
    assert_eq!(plain.cache, Path::new("/h/.cache/huggingface/hub"));
    assert!(!plain.offline && plain.token.is_none());
    let set = client(&[
        ("HOME", "/h"),
        ("HF_HOME", "/x"),
        ("HF_ENDPOINT", "http://e/"),
        ("HF_TOKEN", " t "),
        ("HF_HUB_OFFLINE", "yes"),
    ]);
    assert_eq!(
        (set.endpoint.as_str(), set.cache.as_path(), set.token.as_deref(), set.offline),
        ("http://e", Path::new("/x/hub"), Some("t"), true)
    );
    assert_eq!(client(&[("HF_HUB_CACHE", "/c"), ("HF_HUB_OFFLINE", "0")]).cache, Path::new("/c"));
    assert!(!client(&[("HF_HUB_OFFLINE", "0")]).offline);
}

#[test]
fn what_belongs_to_the_text_is_fetched_too() {
    let mut files = tiny();
    for name in ["generation_config.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"] {
        files.insert(name.into(), format!("{{\"of\": \"{name}\"}}").into_bytes());
    }
    files.insert("chat_template.jinja".into(), b"{{ messages }}".to_vec());
    files.insert("quantize_config.json".into(), b"{\"bits\": 4}".to_vec());
    let server = Server::start(Site { files: files.clone(), ..Site::default() });
    let folder = server.fetch().expect("served");
    for (name, bytes) in &files {
        assert_eq!(read(&folder, name), *bytes, "{name}");
    }
    // a cache that another program filled without them is completed, and only once
    std::fs::remove_file(folder.join("generation_config.json")).expect("it was there");
    let before = server.requests();
    let folder = server.fetch().expect("completed");
    assert_eq!(read(&folder, "generation_config.json"), files["generation_config.json"]);
    let after = server.requests();
    assert!(after > before);
    server.fetch().expect("complete");
    assert_eq!(server.requests(), after);
    // without a network it is what there is
    std::fs::remove_file(folder.join("generation_config.json")).expect("it was there");
    let offline = HubClient { offline: true, ..server.client.clone() };
    assert_eq!(offline.fetch("org/tiny", "main").expect("as far as it goes"), folder);
}

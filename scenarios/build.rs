//! Lists the files that the binary embeds: definitions, texts, tasks and checkpoints, in sorted order.
//!
//! A new file in one of the four folders is embedded by being there; nothing else names it.

#![allow(clippy::disallowed_methods)] // cargo speaks to a build script through environment variables

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() {
    provenance();
    let mut table = String::new();
    definitions(&mut table);
    texts(&mut table);
    tasks(&mut table);
    models(&mut table);
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    fs::write(out.join("embedded.rs"), table).expect("OUT_DIR is writable");
    for folder in ["definitions", "texts", "tasks", "models", "build.rs"] {
        println!("cargo:rerun-if-changed={folder}");
    }
}

/// Entries of `folder`, sorted by name; none when it does not exist.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path()).collect();
    found.sort();
    found
}

fn files_below(folder: &Path, extension: &str, found: &mut Vec<PathBuf>) {
    for path in entries(folder) {
        if path.is_dir() {
            files_below(&path, extension, found);
        } else if path.extension().is_some_and(|e| e == extension) {
            found.push(path);
        }
    }
}

fn stem(path: &Path) -> String {
    path.file_stem().expect("a listed entry has a name").to_string_lossy().into_owned()
}

/// An expression for the file at `path`, which is relative to the manifest.
fn include(with: &str, path: &Path) -> String {
    let path = path.to_string_lossy().replace('\\', "/");
    format!("{with}!(concat!(env!(\"CARGO_MANIFEST_DIR\"), {:?}))", format!("/{path}"))
}

fn definitions(table: &mut String) {
    let mut files = vec![];
    files_below(Path::new("definitions"), "toml", &mut files);
    writeln!(table, "pub static DEFINITIONS: &[Definition] = &[").unwrap();
    for file in files {
        let shown = file.to_string_lossy().replace('\\', "/");
        let text = include("include_str", &file);
        writeln!(table, "    Definition {{ name: {:?}, path: {shown:?}, text: {text} }},", stem(&file)).unwrap();
    }
    writeln!(table, "];").unwrap();
}

fn texts(table: &mut String) {
    writeln!(table, "pub static TEXTS: &[EmbeddedText] = &[").unwrap();
    for folder in entries(Path::new("texts")).into_iter().filter(|p| p.is_dir()) {
        let mut files = vec![];
        files_below(&folder, "txt", &mut files);
        let parts: Vec<String> = files.iter().map(|file| include("include_str", file)).collect();
        writeln!(table, "    EmbeddedText {{ name: {:?}, parts: &[{}] }},", stem(&folder), parts.join(", ")).unwrap();
    }
    writeln!(table, "];").unwrap();
}

fn tasks(table: &mut String) {
    let mut files = vec![];
    files_below(Path::new("tasks"), "jsonl", &mut files);
    writeln!(table, "pub static TASKS: &[(&str, &str)] = &[").unwrap();
    for file in files {
        writeln!(table, "    ({:?}, {}),", stem(&file), include("include_str", &file)).unwrap();
    }
    writeln!(table, "];").unwrap();
}

/// Folders of checkpoints to embed: all of them, or one in programs that have to travel.
fn checkpoints() -> Vec<PathBuf> {
    let small = env::var_os("CARGO_FEATURE_SMALL").is_some();
    entries(Path::new("models")).into_iter().filter(|p| !small || p.ends_with("draft")).collect()
}

fn models(table: &mut String) {
    let shared = include("include_bytes", Path::new("models/tokenizer.json"));
    let (mut rows, mut cards, mut pairs) = (String::new(), String::new(), String::new());
    let mut adapters = String::new();
    for folder in checkpoints().into_iter().filter(|p| p.join("adapter_model.safetensors").is_file()) {
        let config = include("include_str", &folder.join("adapter_config.json"));
        let weights = include("include_bytes", &folder.join("adapter_model.safetensors"));
        writeln!(adapters, "    ({:?}, {config}, {weights}),", stem(&folder)).unwrap();
    }
    for folder in checkpoints().into_iter().filter(|p| p.join("model.safetensors").is_file()) {
        let name = stem(&folder);
        let config = include("include_str", &folder.join("config.json"));
        let weights = include("include_bytes", &folder.join("model.safetensors"));
        let held_out = folder.join("held-out.json");
        // pairs of ids come with a vocabulary of symbols that no tokenizer knows
        let tokenizer = match held_out.is_file() {
            true => "None".to_string(),
            false => format!("Some({shared})"),
        };
        if held_out.is_file() {
            writeln!(pairs, "    ({name:?}, {}),", include("include_str", &held_out)).unwrap();
        }
        writeln!(
            rows,
            "    EmbeddedModel {{ name: {name:?}, config: {config}, weights: {weights}, tokenizer: {tokenizer} }},"
        )
        .unwrap();
        let card = folder.join("training.json");
        if card.is_file() {
            writeln!(cards, "    ({name:?}, {}),", include("include_str", &card)).unwrap();
        }
    }
    writeln!(table, "pub static MODELS: &[EmbeddedModel] = &[\n{rows}];").unwrap();
    writeln!(table, "pub static TRAINING: &[(&str, &str)] = &[\n{cards}];").unwrap();
    writeln!(table, "pub static ADAPTERS: &[(&str, &str, &[u8])] = &[\n{adapters}];").unwrap();
    writeln!(table, "pub static HELD_OUT: &[(&str, &str)] = &[\n{pairs}];").unwrap();
}

/// What this binary was built from, for the provenance of every run.
fn provenance() {
    let output = |program: &str, arguments: &[&str]| {
        let output =
            std::process::Command::new(program).args(arguments).output().ok().filter(|o| o.status.success())?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_string())
    };
    let commit =
        output("git", &["rev-parse", "HEAD"]).map_or("unknown (not built from a git checkout)".into(), |commit| {
            match output("git", &["status", "--porcelain", "--untracked-files=no"]) {
                Some(changes) if changes.is_empty() => commit,
                _ => format!("{commit} with uncommitted changes"),
            }
        });
    let rustc = env::var("RUSTC").ok().and_then(|rustc| output(&rustc, &["--version"])).unwrap_or("unknown".into());
    let get = |name: &str| env::var(name).unwrap_or_default();
    let flags = get("CARGO_ENCODED_RUSTFLAGS").replace('\u{1f}', " ");
    let build = format!("profile {}, target {}, flags [{flags}]", get("PROFILE"), get("TARGET"));
    println!("cargo:rustc-env=INFERMARK_COMMIT={commit}");
    println!("cargo:rustc-env=INFERMARK_RUSTC={rustc}");
    println!("cargo:rustc-env=INFERMARK_BUILD={build}");
    // the commit changes without any file of this crate changing
    for file in ["HEAD", "logs/HEAD"] {
        if let Some(path) = output("git", &["rev-parse", "--git-path", file]) {
            println!("cargo:rerun-if-changed={path}");
        }
    }
}

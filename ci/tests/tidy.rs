//! The rules of ARCHITECTURE.md that a compiler does not check. Every violation of the tree is listed at once.
//!
//! The tables below are the rules; the functions only apply them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

#[path = "tidy/source.rs"]
mod source;

/// Who may depend on whom inside the workspace. What is not listed is forbidden.
/// Dev-dependencies may also reach what the listed crates reach.
const ARROWS: &[(&str, &[&str])] = &[
    ("cpu-kernels", &[]),
    ("ptx-emulator", &[]),
    ("emulated-driver", &["ptx-emulator"]),
    ("cuda-kernels", &["ptx-emulator"]),
    ("model", &["cpu-kernels", "cuda-kernels"]),
    ("attention", &["model", "cpu-kernels", "cuda-kernels"]),
    ("weights", &["model", "cpu-kernels", "cuda-kernels"]),
    ("kv-cache", &["model", "cpu-kernels", "cuda-kernels"]),
    ("decoding", &["model"]),
    ("engine", &["model", "attention", "weights", "kv-cache", "decoding", "cpu-kernels", "cuda-kernels"]),
    ("server", &["engine"]),
    ("training", &["engine"]),
    ("results", &[]),
    ("report", &["results"]),
    ("ci", &["results"]),
    // The five parts below the engine: reproduction scenarios check identities of one part, and a cell is its parts' specs.
    (
        "scenarios",
        &[
            "engine",
            "server",
            "cpu-kernels",
            "cuda-kernels",
            "results",
            "report",
            "ci",
            "model",
            "attention",
            "weights",
            "kv-cache",
            "decoding",
        ],
    ),
];

/// Instruments of tests, and who tests with them: never part of a program.
const INSTRUMENTS: &[(&str, &[&str])] = &[("emulated-driver", &["cuda-kernels"])];

/// Third-party crates (a trailing `*` matches any ending) that have one home.
const ONE_HOME: &[(&str, &str)] =
    &[("polars*", "results"), ("tokio*", "server"), ("axum", "server"), ("hyper*", "server"), ("async-*", "server")];

/// Lines of a file without its tests.
const FILE_BUDGET: usize = 500;
/// Lines of a function, and of one in `kernels/`.
const FUNCTION_BUDGET: usize = 80;
const KERNEL_FUNCTION_BUDGET: usize = 120;
/// Lines of the `//!` header of a variant, and of a folder's README.
const HEADER_BUDGET: usize = 20;
const README_BUDGET: usize = 40;

/// A name that says nothing about its contents.
const DRAWERS: &[&str] =
    &["utils", "util", "helpers", "helper", "common", "misc", "types", "manager", "managers", "stuff"];

/// Folders that may say `unsafe`; in the second, one file (the memory map of weights).
const UNSAFE_HOME: &str = "kernels/";
const UNSAFE_ONE_FILE: &str = "impls/model/src/checkpoint/";

/// Calls with one home: what is called, and the folder of which one file may. The environment is read for a model hub's address
/// and cache, which change where bytes come from and not what they are. The emulated driver is no part of any program: a test tells
/// it through the environment, all that reaches a process's children, which device to be.
const ONE_CALLER: &[(&[&str], &str)] = &[
    (&["Instant::now", "SystemTime::now", "UNIX_EPOCH"], "scenarios/src/"),
    (&["env::var", "env::var_os", "env::vars"], "impls/engine/src/source/"),
];
const INSTRUMENTS_SETTINGS: &str = "kernels/emulated-driver/src/settings.rs";

/// Attributes that hide what should be deleted.
const BANNED_ATTRIBUTES: &[&str] = &["allow(dead_code)", "allow(unused"];

/// Variant files: folder, and the files in it that are not variants.
const VARIANTS: &[(&str, &[&str])] = &[
    ("impls/attention/src", &["lib.rs"]),
    ("impls/weights/src/format", &["mod.rs"]),
    ("impls/weights/src/quantizer", &["mod.rs", "grid.rs", "inverse_factor.rs", "lattice_search.rs", "levels.rs"]),
    ("impls/kv-cache/src/placement", &["mod.rs"]),
    ("impls/kv-cache/src/eviction", &["mod.rs"]),
    ("impls/kv-cache/src/encoding", &["mod.rs"]),
    (
        "impls/decoding/src",
        &[
            "lib.rs",
            "decoder.rs",
            "sequence.rs",
            "ledger.rs",
            "table.rs",
            "sampling.rs",
            "acceptance.rs",
            "chi_square.rs",
            "identities.rs",
        ],
    ),
    ("impls/decoding/src/sampling", &["mod.rs"]),
    (
        "kernels/cpu-kernels/src/*",
        &["mod.rs", "scalar.rs", "avx2.rs", "avx512.rs", "neon.rs", "panels.rs", "tile.rs", "int8_peak.rs"],
    ),
];
const HEADER_WORDS: &[&str] = &["What", "Source", "Shapes", "Exactness"];

/// Top folders, each with a short README.
const README_FOLDERS: &[&str] = &["impls", "kernels", "scenarios", "results", "report", "ci"];

/// Never walked into.
const NOT_SOURCE: &[&str] = &["target", ".git", "results/runs", "results/records"];

const DEFINITIONS: &str = "scenarios/definitions/";

/// Parts of absolute paths that only exist on somebody's machine, without their leading slash.
const MACHINE_FOLDERS: &[&str] = &["work", "root", "home", "tmp", "Users", "mnt"];

/// One finding: the rule, and the place with what is wrong there.
type Violation = (&'static str, String);

/// What applies one rule to all files.
type Rule = fn(&[File]) -> Vec<Violation>;

/// A text file of the tree.
struct File {
    /// Path from the root, with `/`.
    path: String,
    text: String,
    /// For Rust files: the text without inline tests, comments and literals.
    code: String,
}

impl File {
    fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    fn is_test(&self) -> bool {
        let inside = |folder: &str| self.path.contains(&format!("/{folder}/"));
        inside("tests") || inside("benches") || inside("examples") || inside("fuzz") || self.path.ends_with("/tests.rs")
    }

    fn folder(&self) -> &str {
        self.path.rsplit_once('/').map_or("", |(folder, _)| folder)
    }

    fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or_default()
    }
}

#[test]
fn the_tree_is_tidy() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("ci/ has a parent");
    let files = read_tree(root);
    let mut violations = arrows(root);
    let rules: [Rule; 10] =
        [budgets, drawers, unsafe_homes, callers, attributes, headers, scenarios, machine_paths, readmes, lock_sources];
    violations.extend(rules.iter().flat_map(|rule| rule(&files)));
    assert!(violations.is_empty(), "{}", listing(&violations));
}

fn listing(violations: &[Violation]) -> String {
    let mut by_rule: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (rule, place) in violations {
        by_rule.entry(rule).or_default().push(place);
    }
    let mut text = format!("{} violations of the house rules\n", violations.len());
    for (rule, places) in by_rule {
        text.push_str(&format!("\n{rule}\n"));
        places.iter().for_each(|place| text.push_str(&format!("  {place}\n")));
    }
    text
}

fn read_tree(root: &Path) -> Vec<File> {
    let mut files = Vec::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(root.join(&folder)).expect("a folder of the tree can be listed") {
            let entry = entry.expect("an entry of the tree can be read");
            let path = folder.join(entry.file_name());
            let name = path.to_string_lossy().replace('\\', "/");
            let kind = entry.file_type().expect("an entry of the tree has a type");
            if kind.is_dir() && !NOT_SOURCE.contains(&name.as_str()) && !name.ends_with("/target") {
                folders.push(path);
            } else if kind.is_file() {
                // Binary files (checkpoints, pictures) are not text and have no rules.
                if let Ok(text) = std::fs::read_to_string(root.join(&path)) {
                    let code =
                        if name.ends_with(".rs") { source::blank(source::without_tests(&text)) } else { String::new() };
                    files.push(File { path: name, text, code });
                }
            }
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files
}

fn arrows(root: &Path) -> Vec<Violation> {
    let output = std::process::Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(root)
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("cargo metadata prints JSON");
    let allowed: BTreeMap<&str, &[&str]> = ARROWS.iter().copied().collect();
    let mut found = Vec::new();
    for package in metadata["packages"].as_array().expect("packages is a list") {
        let name = package["name"].as_str().unwrap_or_default();
        let Some(direct) = allowed.get(name) else {
            found.push(("arrows: a crate must have a line in ARROWS", name.to_owned()));
            continue;
        };
        let reachable = closure(direct, &allowed);
        for dependency in package["dependencies"].as_array().expect("dependencies is a list") {
            let target = dependency["name"].as_str().unwrap_or_default();
            let is_dev = dependency["kind"].as_str() == Some("dev");
            if allowed.contains_key(target) && dependency["path"].is_string() {
                let tests_with = INSTRUMENTS.iter().any(|(tool, users)| *tool == target && users.contains(&name));
                let listed = direct.contains(&target) || (is_dev && (reachable.contains(target) || tests_with));
                if !listed {
                    let kind = if is_dev { " (dev)" } else { "" };
                    found.push(("arrows: allowed dependencies are in ARROWS", format!("{name} -> {target}{kind}")));
                }
            } else if let Some((_, home)) = ONE_HOME.iter().find(|(pattern, _)| ci::policy::matches(pattern, target))
                && name != *home
            {
                found.push(("arrows: a crate with one home", format!("{name} -> {target}, home is {home}")));
            }
        }
    }
    found
}

/// Everything reachable along allowed arrows from `direct`.
fn closure<'a>(direct: &[&'a str], allowed: &BTreeMap<&'a str, &'a [&'a str]>) -> BTreeSet<&'a str> {
    let mut reachable = BTreeSet::new();
    let mut open: Vec<&str> = direct.to_vec();
    while let Some(name) = open.pop() {
        if reachable.insert(name) {
            open.extend(allowed.get(name).copied().unwrap_or_default());
        }
    }
    reachable
}

fn budgets(files: &[File]) -> Vec<Violation> {
    let mut found = Vec::new();
    for file in files.iter().filter(|file| file.is_rust() && !file.is_test()) {
        let lines = file.code.lines().count();
        if lines > FILE_BUDGET {
            found.push(("budget: a file has 500 lines at most, tests apart", format!("{}: {lines}", file.path)));
        }
        let limit = if file.path.starts_with("kernels/") { KERNEL_FUNCTION_BUDGET } else { FUNCTION_BUDGET };
        for (name, line, length) in source::functions(&file.code) {
            if length > limit {
                found.push((
                    "budget: a function has 80 lines at most, 120 in kernels/",
                    format!("{}:{line}: {name}: {length}", file.path),
                ));
            }
        }
    }
    found
}

fn drawers(files: &[File]) -> Vec<Violation> {
    let mut found = BTreeSet::new();
    for file in files {
        let stems = file.path.split('/').map(|part| part.split('.').next().unwrap_or_default());
        if stems.into_iter().any(|stem| DRAWERS.contains(&stem)) {
            found.insert(("names: a drawer is not a concept", file.path.clone()));
        }
    }
    found.into_iter().collect()
}

fn unsafe_homes(files: &[File]) -> Vec<Violation> {
    let users = files.iter().filter(|file| {
        file.is_rust() && !file.path.starts_with(UNSAFE_HOME) && source::has_word(&source::blank(&file.text), "unsafe")
    });
    let (excused, others): (Vec<&File>, Vec<&File>) = users.partition(|file| file.path.starts_with(UNSAFE_ONE_FILE));
    let rule = "unsafe: only in kernels/, and in one file of impls/model/src/checkpoint/";
    others.into_iter().chain(excused.into_iter().skip(1)).map(|file| (rule, file.path.clone())).collect()
}

fn callers(files: &[File]) -> Vec<Violation> {
    let mut found = Vec::new();
    for (calls, home) in ONE_CALLER {
        let users: Vec<&File> = files
            .iter()
            .filter(|file| {
                // cargo speaks to a build script through variables
                let exempt = file.is_test() || file.name() == "build.rs" || file.path == INSTRUMENTS_SETTINGS;
                file.is_rust() && !exempt && calls.iter().any(|call| source::has_word(&file.code, call))
            })
            .collect();
        let homes = users.iter().filter(|file| file.path.starts_with(home)).count();
        for file in users {
            if !file.path.starts_with(home) || homes > 1 {
                found.push((
                    "one home: the clock in one file of scenarios/src/, the environment in one of impls/engine/src/source/",
                    format!("{}: {}", file.path, calls[0]),
                ));
            }
        }
    }
    found
}

fn attributes(files: &[File]) -> Vec<Violation> {
    let mut found = Vec::new();
    for file in files.iter().filter(|file| file.is_rust()) {
        for attribute in BANNED_ATTRIBUTES.iter().filter(|attribute| file.code.contains(**attribute)) {
            found.push(("attributes: delete what is unused", format!("{}: {attribute}", file.path)));
        }
    }
    found
}

fn headers(files: &[File]) -> Vec<Violation> {
    let mut found = Vec::new();
    for file in files.iter().filter(|file| file.is_rust() && !file.is_test()) {
        let variant = VARIANTS.iter().any(|(folder, except)| {
            let here = match folder.strip_suffix("/*") {
                Some(parent) => file.folder().rsplit_once('/').is_some_and(|(above, _)| above == parent),
                None => file.folder() == *folder,
            };
            here && !except.contains(&file.name())
        });
        if !variant {
            continue;
        }
        let header: Vec<&str> = file.text.lines().take_while(|line| line.starts_with("//!")).collect();
        let missing: Vec<&str> = HEADER_WORDS
            .iter()
            .copied()
            .filter(|word| !header.iter().any(|line| source::has_word(line, word)))
            .collect();
        if !missing.is_empty() {
            found.push((
                "headers: a variant's `//!` says What, Source, Shapes, Exactness",
                format!("{}: lacks {}", file.path, missing.join(", ")),
            ));
        }
        if header.len() > HEADER_BUDGET {
            found.push(("headers: 20 lines at most", format!("{}: {}", file.path, header.len())));
        }
    }
    found
}

fn scenarios(files: &[File]) -> Vec<Violation> {
    let rule = "scenarios: TOML with `name` equal to the file's stem and a `question`";
    let mut found = Vec::new();
    let mut homes: BTreeMap<&str, &str> = BTreeMap::new();
    for file in files.iter().filter(|file| file.path.starts_with(DEFINITIONS) && file.path.ends_with(".toml")) {
        let stem = file.name().trim_end_matches(".toml");
        match file.text.parse::<toml::Table>() {
            Err(error) => found.push((rule, format!("{}: {}", file.path, error.message()))),
            Ok(table) => {
                let text = |key: &str| table.get(key).and_then(toml::Value::as_str).unwrap_or_default();
                if text("name") != stem {
                    found.push((rule, format!("{}: name is `{}`", file.path, text("name"))));
                }
                if text("question").trim().is_empty() {
                    found.push((rule, format!("{}: no question", file.path)));
                }
            }
        }
        if let Some(other) = homes.insert(stem, &file.path) {
            found.push((rule, format!("{}: same name as {other}", file.path)));
        }
    }
    found
}

fn machine_paths(files: &[File]) -> Vec<Violation> {
    let needles: Vec<String> = MACHINE_FOLDERS.iter().map(|folder| format!("/{folder}/")).collect();
    let before_path = |c: char| !(c.is_alphanumeric() || "/._-~}>*".contains(c));
    let mut found = Vec::new();
    for file in files {
        for (index, line) in file.text.lines().enumerate() {
            let stray = |needle: &String| {
                line.match_indices(needle.as_str())
                    .any(|(at, _)| line[..at].chars().next_back().is_none_or(before_path))
            };
            if needles.iter().any(stray) {
                found.push(("paths: none of a particular machine", format!("{}:{}", file.path, index + 1)));
            }
        }
    }
    found
}

fn readmes(files: &[File]) -> Vec<Violation> {
    let mut found = Vec::new();
    for folder in README_FOLDERS {
        let path = format!("{folder}/README.md");
        match files.iter().find(|file| file.path == path) {
            None => found.push(("readme: one per top folder, 40 lines at most", format!("{path}: missing"))),
            Some(file) if file.text.lines().count() > README_BUDGET => found.push((
                "readme: one per top folder, 40 lines at most",
                format!("{path}: {}", file.text.lines().count()),
            )),
            Some(_) => {}
        }
    }
    found
}

fn lock_sources(files: &[File]) -> Vec<Violation> {
    let lock = files.iter().find(|file| file.path == "Cargo.lock");
    let lines = lock.map(|file| file.text.lines()).into_iter().flatten();
    lines
        .filter(|line| {
            line.starts_with("source = ") && !line.contains("registry+https://github.com/rust-lang/crates.io-index")
        })
        .map(|line| ("lock: every crate comes from crates.io", line.to_owned()))
        .collect()
}

#[test]
fn blanking_keeps_lines_and_removes_literals() {
    let text = "let a = \"unsafe \\\" {\"; // unsafe\n/* { /* nested */ } */ let b = '{'; let c: &'a str = r#\"fn x() { \"#;\nunsafe {}\n";
    let code = source::blank(text);
    assert_eq!(code.lines().count(), text.lines().count());
    assert_eq!(code.matches('{').count(), 1);
    assert_eq!(code.matches("unsafe").count(), 1);
    assert!(code.contains("&'a str"));
}

#[test]
fn functions_are_measured() {
    let code =
        "fn one() {}\ntrait T {\n    fn declared(&self, x: [u8; 3]);\n}\nfn three(x: [u8; 3]) -> u8 {\n    x[0]\n}\n";
    assert_eq!(source::functions(code), vec![("one".to_owned(), 1, 1), ("three".to_owned(), 5, 3)]);
}

#[test]
fn inline_tests_do_not_count() {
    assert_eq!(source::without_tests("#[cfg(test)]\nmod tests;\nfn a() {}\n"), "#[cfg(test)]\nmod tests;\nfn a() {}\n");
    assert_eq!(source::without_tests("fn a() {}\n#[cfg(test)]\nmod tests {\n}\n"), "fn a() {}\n");
}

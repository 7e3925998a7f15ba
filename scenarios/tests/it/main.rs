//! The program as a person uses it: exit codes, messages, files.

mod bad_files;
mod commands;
mod external;
mod gates;
mod gguf;
mod resume;
mod runs;
mod tasks;
mod text;
mod translation;

use std::path::Path;

use assert_cmd::Command;

/// The program, in a folder of its own.
fn infermark(folder: &Path) -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("infermark"));
    command.current_dir(folder);
    command
}

/// Standard error of a command line that must end with `code`.
fn refused(folder: &Path, words: &[&str], code: i32) -> String {
    let assert = infermark(folder).args(words).assert().code(code);
    String::from_utf8(assert.get_output().stderr.clone()).expect("UTF-8")
}

/// Standard output of a command line that must succeed.
fn printed(folder: &Path, words: &[&str]) -> String {
    let assert = infermark(folder).args(words).assert().success();
    String::from_utf8(assert.get_output().stdout.clone()).expect("UTF-8")
}

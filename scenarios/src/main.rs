//! `infermark`: a TOML scenario becomes results that people can trust.

mod cell;
mod claims;
mod cli;
mod diagnostic;
mod external;
mod forecast;
mod library;
mod machine;
mod matrix;
mod output;
mod part;
mod protocol;
mod runner;
mod scenario;
mod selftest;
mod stop;
mod stopwatch;
mod task;
mod text;
mod worker;

fn main() -> std::process::ExitCode {
    cli::main()
}

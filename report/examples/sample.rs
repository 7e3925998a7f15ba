//! Writes the page of the tests' made-up run, to look at: `cargo run -p report --example sample -- FILE.html [REPETITIONS]`.

#[path = "../tests/it/sample.rs"]
mod sample;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).unwrap_or_else(|| "sample.html".into());
    let repetitions = std::env::args().nth(2).map_or(Ok(8), |text| text.parse())?;
    let run = sample::run(repetitions);
    std::fs::write(&path, report::render(&run)?)?;
    println!("{path}: {} rows", run.observations.len());
    Ok(())
}

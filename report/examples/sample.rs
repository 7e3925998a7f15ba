//! Writes the page of the tests' made-up run, to look at: `cargo run -p report --example sample -- FILE.html`.

#[path = "../tests/it/sample.rs"]
mod sample;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).unwrap_or_else(|| "sample.html".into());
    std::fs::write(&path, report::render(&sample::run(8))?)?;
    println!("{path}");
    Ok(())
}

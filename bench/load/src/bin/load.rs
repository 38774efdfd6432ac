//! `load`: asks a server over and over, checks every answer, and prints what it took as one line of JSON.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program's output")]

use std::process::ExitCode;

use signalwarden_load::{asked, options, run};

fn main() -> ExitCode {
    match measured() {
        Ok(figures) => {
            println!("{figures}");
            ExitCode::SUCCESS
        }
        Err(what) => {
            eprintln!("load: {what}\nusage: {}", options::LOAD_USAGE);
            ExitCode::from(2)
        }
    }
}

fn measured() -> Result<serde_json::Value, String> {
    let options = options::load(lexopt::Parser::from_env())?;
    let text = std::fs::read_to_string(&options.requests)
        .map_err(|error| format!("`{}` can't be read: {error}", options.requests.display()))?;
    let asked = asked::read(&text)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("the runtime can't be made: {error}"))?;
    tokio::task::LocalSet::new().block_on(&runtime, run::run(&options, asked))
}

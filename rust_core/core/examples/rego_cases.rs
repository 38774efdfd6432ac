//! OPA's conformance cases, one after the other: how each stands, as a line of JSON.
//!
//! `cargo run --features conformance --example rego_cases -- CASES [FOLDER]`, where CASES is what `tests/conformance/cases.sh` writes.
//! `tests/conformance/run.py` compares the lines with the baseline.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr, reason = "a tool for tests")]

use signalwarden_core::policy::rego::cases::{Case, Standing, run};
use std::{
    fs::File,
    io::{BufRead, BufReader, Write},
};

fn main() {
    let mut args = std::env::args().skip(1);
    let Some(file) = args.next() else {
        eprintln!("usage: rego_cases CASES [FOLDER]");
        std::process::exit(2);
    };
    let folder = args.next();
    // A panic is caught where it happens and becomes an error of the case.
    std::panic::set_hook(Box::new(|_| {}));
    let mut out = std::io::stdout().lock();
    for line in BufReader::new(File::open(file).unwrap()).lines() {
        let case: Case = serde_json::from_str(&line.unwrap()).unwrap();
        if folder.as_ref().is_some_and(|folder| !case.folder.starts_with(folder.as_str())) {
            continue;
        }
        let (standing, code, why) = match run(&case) {
            Standing::Passed => ("passed", "", String::new()),
            Standing::Refused(code, why) => ("refused", code, why),
            Standing::Denied(why) => ("differs", "", why),
            Standing::Wrong(why) => ("wrong", "", why),
        };
        let said = serde_json::json!({
            "folder": case.folder, "note": case.note, "standing": standing, "code": code, "why": why,
        });
        writeln!(out, "{said}").unwrap();
    }
}

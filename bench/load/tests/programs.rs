//! The two programs against one another: every answer is checked, and a mistake is one sentence.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

/// `{}` in base64 would do: the floor does not look.
const ALLOWED: &str = r#"{"expect":"allow","grpc":"AAEC"}"#;
const DENIED: &str = r#"{"expect":"deny","grpc":"AAEC"}"#;

struct Floor(Child, String);

impl Floor {
    fn start(arguments: &[&str]) -> Self {
        let mut child =
            Command::new(env!("CARGO_BIN_EXE_floor")).args(arguments).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self(child, line.trim().to_owned())
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn load(target: &str, requests: &str, more: &[&str]) -> Output {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(requests.as_bytes()).unwrap();
    Command::new(env!("CARGO_BIN_EXE_load"))
        .args(["--target", target, "--seconds", "0.3", "--warm-up", "0.1", "--requests"])
        .arg(file.path())
        .args(more)
        .output()
        .unwrap()
}

fn figures(output: &Output) -> Value {
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn an_open_loop_keeps_its_rate() {
    let floor = Floor::start(&[]);
    let seen = figures(&load(&floor.1, ALLOWED, &["--rate", "1000"]));
    let sent = seen["sent"].as_u64().unwrap() + seen["unsent"].as_u64().unwrap();
    assert!((299..=301).contains(&sent), "{seen}");
    assert_eq!(seen["outcomes"]["allow"], seen["sent"]);
    assert_eq!(seen["asked_for"]["loop"], "open");
}

#[test]
fn a_closed_loop_over_a_unix_socket_and_two_threads() {
    let folder = tempfile::tempdir().unwrap();
    let place = format!("unix://{}", folder.path().join("check.sock").display());
    let floor = Floor::start(&["--listen", &place, "--threads", "2"]);
    assert_eq!(floor.1, place);
    let seen = figures(&load(&place, ALLOWED, &["--connections", "3", "--streams", "2"]));
    assert!(seen["answered"].as_u64().unwrap() > 0 && seen["unanswered"] == 0, "{seen}");
}

#[test]
fn an_answer_that_was_not_to_be_is_wrong() {
    let floor = Floor::start(&[]);
    let seen = figures(&load(&floor.1, &format!("{ALLOWED}\n{DENIED}\n"), &["--rate", "100"]));
    let half = seen["answered"].as_u64().unwrap() / 2;
    assert!(seen["outcomes"]["wrong"].as_u64().unwrap().abs_diff(half) <= 1, "{seen}");
}

#[test]
fn nobody_there_is_said_in_a_sentence() {
    let output = load("unix:///nonexistent/check.sock", ALLOWED, &[]);
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.starts_with("load: `unix:///nonexistent/check.sock` can't be reached"), "{said}");
}

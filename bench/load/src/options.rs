//! What the programs are told on their command lines, held to bounds.

use std::path::PathBuf;
use std::time::Duration;

use lexopt::prelude::*;

use crate::target::Target;

/// Each bound keeps a slip of the hand from becoming an attack on the machine that measures.
const MOST_SECONDS: f64 = 3_600.0;
const MOST_RATE: u32 = 1_000_000;
const MOST_CONNECTIONS: usize = 10_000;
const MOST_STREAMS: usize = 1_000;
const MOST_IN_FLIGHT: usize = 100_000;
const MOST_THREADS: usize = 64;

/// Which protocol is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// As Envoy asks a decision point.
    Grpc,
    /// As a client asks Envoy: HTTP/1.1, one call at a time on a connection.
    Http,
}

/// What `load` is to do.
#[derive(Clone, Debug)]
pub struct Load {
    /// Whom it asks.
    pub target: Target,
    /// How.
    pub protocol: Protocol,
    /// The file of requests.
    pub requests: PathBuf,
    /// Requests a second, whatever comes back; None: a closed loop, where each answer lets the next request go.
    pub rate: Option<u32>,
    /// Connections.
    pub connections: usize,
    /// Calls in flight on each connection of a closed loop.
    pub streams: usize,
    /// Calls in flight on all connections of an open loop: beyond it, a call waits and its latency with it.
    pub in_flight: usize,
    /// How long, after the warm-up.
    pub seconds: Duration,
    /// What comes before, and is not counted.
    pub warm_up: Duration,
}

/// What `floor` is to do.
#[derive(Clone, Debug)]
pub struct Floor {
    /// Where it listens.
    pub listen: Target,
    /// Threads that serve.
    pub threads: usize,
}

/// How `load` is called.
pub const LOAD_USAGE: &str = "load --target ADDRESS:PORT|unix:///PATH --requests FILE [--http] [--rate PER_SECOND] \
[--connections N] [--streams N] [--in-flight N] [--seconds N] [--warm-up N]";
/// How `floor` is called.
pub const FLOOR_USAGE: &str = "floor [--listen ADDRESS:PORT|unix:///PATH] [--threads N]";

/// Reads the command line of `load`.
pub fn load(mut line: lexopt::Parser) -> Result<Load, String> {
    let (mut target, mut requests, mut rate, mut protocol) = (None, None, None, Protocol::Grpc);
    let (mut connections, mut streams, mut in_flight) = (2, 8, 1_000);
    let (mut seconds, mut warm_up) = (Duration::from_secs(10), Duration::from_secs(1));
    while let Some(argument) = line.next().map_err(said)? {
        match argument {
            Long("target") => target = Some(text(&mut line)?.parse()?),
            Long("requests") => requests = Some(PathBuf::from(text(&mut line)?)),
            Long("http") => protocol = Protocol::Http,
            Long("rate") => rate = Some(whole(&mut line, "--rate", MOST_RATE)?),
            Long("connections") => connections = whole(&mut line, "--connections", MOST_CONNECTIONS)?,
            Long("streams") => streams = whole(&mut line, "--streams", MOST_STREAMS)?,
            Long("in-flight") => in_flight = whole(&mut line, "--in-flight", MOST_IN_FLIGHT)?,
            Long("seconds") => seconds = span(&mut line, "--seconds")?,
            Long("warm-up") => warm_up = span(&mut line, "--warm-up")?,
            other => return Err(said(other.unexpected())),
        }
    }
    if protocol == Protocol::Http && streams != 1 {
        streams = 1;
    }
    Ok(Load {
        target: target.ok_or("`--target` is missing")?,
        requests: requests.ok_or("`--requests` is missing")?,
        protocol,
        rate,
        connections,
        streams,
        in_flight,
        seconds,
        warm_up,
    })
}

/// Reads the command line of `floor`.
pub fn floor(mut line: lexopt::Parser) -> Result<Floor, String> {
    let (mut listen, mut threads) = ("127.0.0.1:0".parse()?, 1);
    while let Some(argument) = line.next().map_err(said)? {
        match argument {
            Long("listen") => listen = text(&mut line)?.parse()?,
            Long("threads") => threads = whole(&mut line, "--threads", MOST_THREADS)?,
            other => return Err(said(other.unexpected())),
        }
    }
    Ok(Floor { listen, threads })
}

#[expect(clippy::needless_pass_by_value, reason = "as `map_err` hands it over")]
fn said(error: lexopt::Error) -> String {
    error.to_string()
}

fn text(line: &mut lexopt::Parser) -> Result<String, String> {
    line.value().and_then(ValueExt::string).map_err(said)
}

#[expect(clippy::needless_pass_by_value, reason = "a number")]
fn whole<N>(line: &mut lexopt::Parser, name: &str, most: N) -> Result<N, String>
where
    N: std::fmt::Display + PartialOrd + std::str::FromStr + From<u8>,
{
    let read = text(line)?;
    match read.parse::<N>() {
        Ok(number) if number <= most && number >= N::from(1) => Ok(number),
        _ => Err(format!("`{name}` is a whole number from 1 to {most}, not `{read}`")),
    }
}

fn span(line: &mut lexopt::Parser, name: &str) -> Result<Duration, String> {
    let read = text(line)?;
    match read.parse::<f64>() {
        Ok(seconds) if (0.0..=MOST_SECONDS).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err(format!("`{name}` is a number of seconds from 0 to {MOST_SECONDS}, not `{read}`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(arguments: &[&str]) -> Result<Load, String> {
        load(lexopt::Parser::from_args(arguments))
    }

    #[test]
    fn a_rate_makes_an_open_loop() {
        let base = ["--target", "127.0.0.1:1", "--requests", "r.jsonl"];
        assert_eq!(read(&base).unwrap().rate, None);
        assert_eq!(read(&[&base[..], &["--rate", "500"]].concat()).unwrap().rate, Some(500));
        assert_eq!(read(&[&base[..], &["--http", "--streams", "9"]].concat()).unwrap().streams, 1);
    }

    #[test]
    fn what_is_beyond_its_bound_is_refused_in_a_sentence() {
        let base = ["--target", "127.0.0.1:1", "--requests", "r.jsonl"];
        for (more, what) in [
            (["--rate", "0"], "`--rate` is a whole number from 1 to 1000000, not `0`"),
            (["--connections", "10001"], "`--connections`"),
            (["--seconds", "inf"], "`--seconds`"),
            (["--warm-up", "-1"], "`--warm-up`"),
        ] {
            assert!(read(&[&base[..], &more].concat()).unwrap_err().contains(what));
        }
        assert!(read(&["--requests", "x"]).unwrap_err().contains("`--target`"));
        assert!(read(&["--what"]).unwrap_err().contains("--what"));
    }

    #[test]
    fn the_floor_listens_on_a_free_port_with_one_thread_unless_it_is_told_otherwise() {
        let floor = |arguments: &[&str]| floor(lexopt::Parser::from_args(arguments));
        assert_eq!(floor(&[]).unwrap().threads, 1);
        assert_eq!(floor(&["--listen", "unix:///tmp/x", "--threads", "2"]).unwrap().threads, 2);
        assert!(floor(&["--threads", "65"]).is_err());
    }
}

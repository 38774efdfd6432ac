//! Texts that nobody meant, as files of Rego: the corpus of the fuzz target with its words exchanged, left out and put
//! elsewhere. Neither the loader nor an evaluation panics, what is refused says why, and what is loaded gives one answer.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, clippy::print_stdout, missing_docs)]

mod generated;

use generated::{actions, query, signals};
use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};
use signalwarden_core::{
    findings::Findings,
    policy::{
        Judged, PolicyEngine, SignalRule,
        rego::{RegoEngine, RegoFiles},
        settings::RegoSettings,
    },
};
use std::{cell::Cell, fs, path::Path};

const CASES: u32 = 6_000;

/// What is said where the interpreter panics and is caught.
const CAUGHT: &str = "a bug of ours";

/// Words, marks and the space between them, of every file of the corpus.
fn corpus() -> Vec<Vec<String>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/rego");
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.iter().map(|file| words(&fs::read_to_string(file).unwrap())).collect()
}

fn words(text: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let is_word = |letter: char| letter.is_alphanumeric() || letter == '_';
    for letter in text.chars() {
        match words.last_mut() {
            Some(word) if is_word(letter) && word.chars().all(is_word) => word.push(letter),
            _ => words.push(letter.to_string()),
        }
    }
    words
}

/// One change: which, where, and with which word of which file.
type Change = (u8, prop::sample::Index, prop::sample::Index, prop::sample::Index);

fn changed(corpus: &[Vec<String>], file: prop::sample::Index, changes: &[Change]) -> String {
    let mut words = corpus[file.index(corpus.len())].clone();
    for (kind, at, other, word) in changes {
        if words.is_empty() {
            break;
        }
        let at = at.index(words.len());
        let other = &corpus[other.index(corpus.len())];
        let word = other[word.index(other.len())].clone();
        match kind {
            0 => drop(words.remove(at)),
            1 => words.insert(at, word),
            2 => {
                let copy = words[at].clone();
                words.insert(at, copy);
            }
            _ => words[at] = word,
        }
    }
    words.concat()
}

fn load(text: &str, rules: &[SignalRule]) -> Result<RegoEngine, Findings> {
    let mut findings = Findings::default();
    let settings = RegoSettings::default();
    let files = RegoFiles { policies: &[("policies/p.rego", text)], data: None, settings: &settings };
    RegoEngine::load(files, &actions(), rules, &mut findings).ok_or(findings)
}

#[test]
fn no_text_makes_the_loader_or_an_evaluation_panic() {
    let corpus = corpus();
    let mut runner =
        TestRunner::new(ProptestConfig { cases: CASES, failure_persistence: None, ..ProptestConfig::default() });
    let (mut rules, _) = signals().new_tree(&mut runner).unwrap().current();
    for rule in &mut rules {
        rule.self_asserted = false;
    }
    let counted: Cell<[u32; 3]> = Cell::new([0; 3]);
    let strategy = (any::<prop::sample::Index>(), prop::collection::vec(any::<Change>(), 0..5));
    let result = runner.run(&strategy, |(file, changes)| {
        let text = changed(&corpus, file, &changes);
        let mut counts = counted.get();
        match load(&text, &rules) {
            Err(findings) => {
                counts[0] += 1;
                prop_assert!(findings.has_errors(), "refused without a word: {text}");
                let caught = findings.as_slice().iter().find(|finding| finding.message.contains(CAUGHT));
                prop_assert!(caught.is_none(), "{text}\n{caught:?}");
            }
            Ok(engine) => {
                let slice = engine.slice(&query()).unwrap();
                let judged = slice.judge_all(&[]);
                prop_assert_eq!(&judged, &slice.judge_all(&[]), "{}", text);
                counts[1 + usize::from(matches!(judged[..], [Judged::Failed(_)]))] += 1;
                if let [Judged::Failed(why)] = &judged[..] {
                    prop_assert!(!why.contains(CAUGHT), "{text}\n{why}");
                }
            }
        }
        counted.set(counts);
        Ok(())
    });
    let [refused, judged, failed] = counted.get();
    println!("texts: {refused} refused, {judged} judged, {failed} failed, of {CASES}");
    result.unwrap();
    assert!(judged > 200 && refused > 500, "too few to prove anything: {refused}, {judged}");
}

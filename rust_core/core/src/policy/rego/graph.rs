//! Which rules an entry point can reach, and that none reaches itself.

use super::walk::{Kind, Reading, Step};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    ops::Bound,
};

/// How deep the interpreter goes for a rule beside what stands in it (see `walk.rs`).
const OF_RULE: usize = 12;

/// The rules of a directory by what they define, and what each refers to.
pub(super) struct Graph {
    /// By position in the readings.
    edges: Vec<Vec<usize>>,
}

/// Rules by the path that they define.
pub(super) struct Index<'r> {
    by_path: BTreeMap<&'r [String], Vec<usize>>,
    readings: &'r [Reading],
}

impl<'r> Index<'r> {
    pub(super) fn of(readings: &'r [Reading]) -> Self {
        let mut by_path: BTreeMap<&[String], Vec<usize>> = BTreeMap::new();
        for (at, reading) in readings.iter().enumerate() {
            by_path.entry(&reading.path).or_default().push(at);
        }
        Self { by_path, readings }
    }

    pub(super) fn paths(&self) -> impl Iterator<Item = &'r [String]> {
        self.by_path.keys().copied()
    }

    /// Rules that define exactly this.
    pub(super) fn exactly(&self, path: &[String]) -> &[usize] {
        self.by_path.get(path).map_or(&[], Vec::as_slice)
    }

    fn is_function(&self, at: usize) -> bool {
        self.readings.get(at).is_some_and(|reading| matches!(reading.kind, Kind::Function(1..)))
    }

    /// Rules whose value a reference to a path may need: what defines it, what holds it, what lies below it.
    pub(super) fn touched(&self, path: &[String]) -> Vec<usize> {
        let mut found: Vec<usize> = Vec::new();
        for length in 1..=path.len() {
            found.extend(path.get(..length).into_iter().flat_map(|prefix| self.exactly(prefix)));
        }
        let below = self.by_path.range::<[String], _>((Bound::Excluded(path), Bound::Unbounded));
        for (_, rules) in below.take_while(|(defined, _)| defined.starts_with(path)) {
            // Functions are no part of a document.
            found.extend(rules.iter().copied().filter(|at| !self.is_function(*at)));
        }
        found
    }

    /// The function that a call means, if it is one of these files.
    pub(super) fn called(&self, path: &[String], package: &[String]) -> &[usize] {
        let own: Vec<String> = match path.split_first() {
            Some((root, rest)) if root == "data" => rest.to_vec(),
            _ => package.iter().chain(path).cloned().collect(),
        };
        self.exactly(&own)
    }
}

/// The literal beginning of a reference.
pub(super) fn literal_part(path: &[Step]) -> Vec<String> {
    let name = |step: &Step| match step {
        Step::Name(name) => Some(name.clone()),
        Step::Any => None,
    };
    path.iter().map_while(name).collect()
}

impl Graph {
    /// `packages`: that of each reading.
    pub(super) fn of(readings: &[Reading], packages: &[&[String]], index: &Index<'_>) -> Self {
        let edges = readings.iter().zip(packages).map(|(reading, package)| {
            let data = reading.data.iter().flat_map(|read| index.touched(&literal_part(&read.path)));
            let calls = reading.calls.iter().flat_map(|call| index.called(&call.path, package).iter().copied());
            data.chain(calls).collect::<BTreeSet<usize>>().into_iter().collect()
        });
        Self { edges: edges.collect() }
    }

    fn next(&self, at: usize) -> &[usize] {
        self.edges.get(at).map_or(&[], Vec::as_slice)
    }

    /// Everything that these reach, themselves included.
    pub(super) fn reachable(&self, from: &[usize]) -> BTreeSet<usize> {
        let mut found: BTreeSet<usize> = from.iter().copied().collect();
        let mut open: VecDeque<usize> = from.iter().copied().collect();
        while let Some(at) = open.pop_front() {
            for next in self.next(at) {
                if found.insert(*next) {
                    open.push_back(*next);
                }
            }
        }
        found
    }

    /// The order in which each rule stands after those that it refers to; `Err`: a rule that reaches itself, and the rule
    /// that closes the circle.
    pub(super) fn order(&self) -> Result<Vec<usize>, (usize, usize)> {
        #[derive(Clone, Copy, PartialEq)]
        enum Mark {
            New,
            Open,
            Done,
        }
        let mut marks = vec![Mark::New; self.edges.len()];
        let mut order = Vec::with_capacity(self.edges.len());
        let mark = |marks: &mut Vec<Mark>, at: usize, mark: Mark| {
            if let Some(slot) = marks.get_mut(at) {
                *slot = mark;
            }
        };
        for start in 0..self.edges.len() {
            if marks.get(start) != Some(&Mark::New) {
                continue;
            }
            let mut path = vec![(start, 0_usize)];
            mark(&mut marks, start, Mark::Open);
            while let Some((at, done)) = path.last_mut() {
                let (at, turn) = (*at, *done);
                *done += 1;
                let Some(next) = self.next(at).get(turn) else {
                    mark(&mut marks, at, Mark::Done);
                    order.push(at);
                    path.pop();
                    continue;
                };
                match marks.get(*next) {
                    Some(Mark::Open) => return Err((*next, at)),
                    Some(Mark::New) => {
                        mark(&mut marks, *next, Mark::Open);
                        path.push((*next, 0));
                    }
                    _ => {}
                }
            }
        }
        Ok(order)
    }

    /// How deep the interpreter goes in each rule at most, with all that it refers to. `order` as above.
    pub(super) fn depths(&self, readings: &[Reading], order: &[usize]) -> Vec<usize> {
        let mut depths = vec![0_usize; self.edges.len()];
        for at in order {
            let own = readings.get(*at).map_or(0, |reading| reading.depth.saturating_add(OF_RULE));
            let below = self.next(*at).iter().filter_map(|next| depths.get(*next)).max().copied().unwrap_or(0);
            if let Some(slot) = depths.get_mut(*at) {
                *slot = own.saturating_add(below);
            }
        }
        depths
    }
}

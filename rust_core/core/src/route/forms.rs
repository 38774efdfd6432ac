//! Forms of paths: templates without the text around their parameters, and a tree that finds those that share a path.

use super::paths::Segment;
use std::collections::BTreeMap;

/// The form of a template that `matchit` is asked for: text around a parameter is left to the candidates,
/// since its search does not try every reading of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Form(Vec<Segment>);

impl Form {
    pub(super) fn exactly(segments: &[Segment]) -> Self {
        let plain = |segment: &Segment| match segment {
            Segment::Param { .. } => Segment::Param { prefix: "".into(), suffix: "".into() },
            Segment::Literal(_) | Segment::Rest => segment.clone(),
        };
        Self(segments.iter().map(plain).collect())
    }

    /// The form, and for one that ends with `{*rest}` the form in which that is nothing.
    pub(super) fn of(segments: &[Segment]) -> Vec<Self> {
        let form = Self::exactly(segments);
        let mut all = Vec::new();
        if let [before @ .., Segment::Rest] = form.0.as_slice() {
            let mut without = before.to_vec();
            without.push(Segment::Literal("".into()));
            all.push(Self(without));
        }
        all.push(form);
        all
    }

    pub(super) fn key(&self) -> String {
        let part = |(at, segment): (usize, &Segment)| match segment {
            Segment::Literal(text) => format!("/{text}"),
            Segment::Param { .. } => format!("/{{p{at}}}"),
            Segment::Rest => "/{*rest}".to_owned(),
        };
        self.0.iter().enumerate().map(part).collect()
    }

    /// The order in which `matchit` searches: literal text, then a parameter, then all the rest.
    pub(super) fn rank(&self) -> Vec<u8> {
        let rank = |segment: &Segment| match segment {
            Segment::Literal(_) => 2,
            Segment::Param { .. } => 1,
            Segment::Rest => 0,
        };
        self.0.iter().map(rank).collect()
    }
}

/// Routes by the form of their path, so that those that share a path with a form are found without looking at all.
#[derive(Debug, Default)]
pub(super) struct Tree {
    /// Routes whose path ends here.
    here: Vec<usize>,
    /// Routes for which all the rest follows here.
    rest: Vec<usize>,
    literals: BTreeMap<Box<str>, Tree>,
    param: Option<Box<Tree>>,
}

impl Tree {
    pub(super) fn add(&mut self, form: &Form, route: usize) {
        let mut tree = self;
        for segment in &form.0 {
            tree = match segment {
                Segment::Literal(text) => tree.literals.entry(text.clone()).or_default(),
                Segment::Param { .. } => tree.param.get_or_insert_default(),
                Segment::Rest => {
                    tree.rest.push(route);
                    return;
                }
            };
        }
        tree.here.push(route);
    }

    /// The routes that some path of this form could be for, in their order.
    pub(super) fn overlapping(&self, form: &Form) -> Vec<usize> {
        let mut found = Vec::new();
        self.collect(&form.0, &mut found);
        found.sort_unstable();
        found
    }

    fn collect(&self, segments: &[Segment], found: &mut Vec<usize>) {
        let [segment, below @ ..] = segments else {
            found.extend(&self.here);
            return;
        };
        found.extend(&self.rest);
        match segment {
            Segment::Rest => self.below().for_each(|tree| tree.collect_all(found)),
            Segment::Literal(text) => {
                // A parameter is at least one character.
                let param = self.param.as_deref().filter(|_| !text.is_empty());
                self.literals.get(text).into_iter().chain(param).for_each(|tree| tree.collect(below, found));
            }
            Segment::Param { .. } => {
                let literals = self.literals.iter().filter(|(text, _)| !text.is_empty()).map(|(_, tree)| tree);
                literals.chain(self.param.as_deref()).for_each(|tree| tree.collect(below, found));
            }
        }
    }

    fn collect_all(&self, found: &mut Vec<usize>) {
        found.extend(self.here.iter().chain(&self.rest));
        self.below().for_each(|tree| tree.collect_all(found));
    }

    fn below(&self) -> impl Iterator<Item = &Tree> {
        self.literals.values().chain(self.param.as_deref())
    }
}

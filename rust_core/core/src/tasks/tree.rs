//! What the tasks of one tree have touched so far. A tree is one: a fresh child does not start with a clean slate.

use crate::change::TreeTouched;
use crate::locks::lock;
use crate::model::{ResourceId, Sensitivity, TaskId};
use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};

/// Systems, and the highest sensitivity.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touched {
    /// Systems.
    pub systems: BTreeSet<Arc<str>>,
    /// The highest sensitivity; `None`: nothing yet.
    pub sensitivity: Option<Sensitivity>,
}

impl Touched {
    /// `context.chain.sensitivity`: 0 where nothing was touched yet, then 1 to 3.
    pub fn level(&self) -> i64 {
        match self.sensitivity {
            None => 0,
            Some(Sensitivity::Low) => 1,
            Some(Sensitivity::Medium) => 2,
            Some(Sensitivity::High) => 3,
        }
    }
}

/// All tasks of one root.
#[derive(Debug)]
pub struct Tree {
    touched: Mutex<Arc<Touched>>,
    /// In memory alone. `None`: it began before this core did, so nobody knows what it has done.
    ///
    /// INVARIANT I2: nothing here is ever zero because it was forgotten.
    counted: Option<Mutex<Counted>>,
}

/// What was allowed under a tree.
#[derive(Debug, Default)]
struct Counted {
    calls: i64,
    resources: BTreeSet<ResourceId>,
}

/// Distinct resources told apart; beyond, the number stays here. A task that touches more needs no exact number.
const MOST_RESOURCES: usize = 256;

/// What became of a touch.
#[derive(Debug, PartialEq, Eq)]
pub enum Touch {
    /// Nothing is new.
    Known,
    /// Something is: this is to be kept before the answer leaves.
    New(TreeTouched),
    /// Another call touched something since this one looked: it must look again.
    Moved,
}

impl Tree {
    /// Nothing touched yet. `is_new`: it begins now, and was not read back.
    pub fn new(is_new: bool) -> Self {
        Self { touched: Mutex::default(), counted: is_new.then(Mutex::default) }
    }

    /// Calls and distinct resources so far, where they are known.
    pub fn counts(&self) -> Option<(i64, i64)> {
        let counted = lock(self.counted.as_ref()?);
        Some((counted.calls, i64::try_from(counted.resources.len()).unwrap_or(i64::MAX)))
    }

    /// Counts an allowed call.
    pub fn count(&self, resource: &ResourceId) {
        let Some(counted) = &self.counted else { return };
        let mut counted = lock(counted);
        counted.calls = counted.calls.saturating_add(1);
        if counted.resources.len() < MOST_RESOURCES {
            counted.resources.insert(resource.clone());
        }
    }

    /// What is touched now.
    pub fn now(&self) -> Arc<Touched> {
        Arc::clone(&lock(&self.touched))
    }

    /// Touches, if nobody did since `seen` was looked at.
    ///
    /// INVARIANT: two calls that reach for two systems at once can't both have seen neither.
    pub fn touch(&self, root: &TaskId, seen: &Arc<Touched>, system: Option<&Arc<str>>, level: Sensitivity) -> Touch {
        let mut now = lock(&self.touched);
        if **now != **seen {
            return Touch::Moved;
        }
        let next = with(&now, system, Some(level));
        if next == **now {
            return Touch::Known;
        }
        *now = Arc::new(next.clone());
        Touch::New(TreeTouched { root: root.clone(), systems: next.systems, sensitivity: next.sensitivity })
    }

    /// Takes in what was kept; it only ever grows.
    pub fn keep(&self, touched: &TreeTouched) {
        let mut now = lock(&self.touched);
        let mut next = with(&now, None, touched.sensitivity);
        next.systems.extend(touched.systems.iter().cloned());
        *now = Arc::new(next);
    }
}

fn with(now: &Touched, system: Option<&Arc<str>>, level: Option<Sensitivity>) -> Touched {
    let mut next = now.clone();
    next.systems.extend(system.cloned());
    next.sensitivity = next.sensitivity.max(level);
    next
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_that_touch_two_systems_at_once_one_must_look_again() {
        let (tree, root) = (Tree::new(true), TaskId::parse("r").unwrap());
        let (crm, notes): (Arc<str>, Arc<str>) = ("crm".into(), "notes".into());
        let seen = tree.now();
        assert!(matches!(tree.touch(&root, &seen, Some(&crm), Sensitivity::Low), Touch::New(_)));
        assert_eq!(tree.touch(&root, &seen, Some(&notes), Sensitivity::Low), Touch::Moved);
        let seen = tree.now();
        assert_eq!(tree.touch(&root, &seen, Some(&crm), Sensitivity::Low), Touch::Known);
        let Touch::New(touched) = tree.touch(&root, &seen, Some(&crm), Sensitivity::High) else { panic!() };
        assert_eq!(touched.sensitivity, Some(Sensitivity::High));
        let other = Tree::new(true);
        other.keep(&touched);
        assert_eq!(other.now(), tree.now());
        assert_eq!(other.now().level(), 3);
    }

    #[test]
    fn a_tree_that_was_read_back_has_no_count_and_one_that_began_here_has() {
        let page = |id: &str| ResourceId { kind: "Page".into(), id: id.into() };
        let (fresh, old) = (Tree::new(true), Tree::new(false));
        for tree in [&fresh, &old] {
            for id in ["1", "2", "1"] {
                tree.count(&page(id));
            }
        }
        assert_eq!((fresh.counts(), old.counts()), (Some((3, 2)), None));
        for id in 0..1_000 {
            fresh.count(&page(&id.to_string()));
        }
        assert_eq!(fresh.counts(), Some((1_003, 256)));
    }
}

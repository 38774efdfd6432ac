//! Tasks in the orders in which they are asked for, so that a sweep and a listing cost what they find and not what is held.

use super::Kept;
use crate::model::{SpiffeId, TaskId, Timestamp};
use std::collections::{BTreeMap, BTreeSet};

/// The orders of the tasks that are held.
#[derive(Default)]
pub(super) struct Orders {
    /// All of them.
    held: ByBeginning,
    /// Those that may count: neither ended by anybody's word, nor over by the mark of time, which never runs back.
    open: ByBeginning,
    /// The open ones by their end.
    open_ends: BTreeSet<(Timestamp, TaskId)>,
    /// Trees by the end of their last task.
    tree_ends: BTreeSet<(Timestamp, TaskId)>,
    /// The members of each tree, and its end.
    trees: BTreeMap<TaskId, (Timestamp, BTreeSet<TaskId>)>,
}

/// Tasks by when they began, of everyone and of each principal.
#[derive(Default)]
struct ByBeginning {
    all: BTreeSet<(Timestamp, TaskId)>,
    of: BTreeMap<SpiffeId, BTreeSet<(Timestamp, TaskId)>>,
}

impl ByBeginning {
    fn insert(&mut self, kept: &Kept) {
        let key = (kept.task.begun_at, kept.task.id.clone());
        self.of.entry(kept.task.principal.clone()).or_default().insert(key.clone());
        self.all.insert(key);
    }

    fn remove(&mut self, kept: &Kept) {
        let key = (kept.task.begun_at, kept.task.id.clone());
        self.all.remove(&key);
        if let Some(of) = self.of.get_mut(&kept.task.principal) {
            of.remove(&key);
            if of.is_empty() {
                self.of.remove(&kept.task.principal);
            }
        }
    }

    fn newest_first(&self, principal: Option<&str>) -> Box<dyn Iterator<Item = &TaskId> + '_> {
        let Some(principal) = principal else { return Box::new(self.all.iter().rev().map(|(_, id)| id)) };
        let of = SpiffeId::parse(principal).ok().and_then(|principal| self.of.get(&principal));
        Box::new(of.into_iter().flatten().rev().map(|(_, id)| id))
    }
}

impl Orders {
    /// Takes a task in that has just begun, or was read back.
    pub(super) fn begin(&mut self, kept: &Kept, is_ended: bool) {
        let (id, end) = (&kept.task.id, kept.ends_at());
        self.held.insert(kept);
        if !is_ended {
            self.open.insert(kept);
            self.open_ends.insert((end, id.clone()));
        }
        self.touch(&kept.task.root, Some((end, id)));
    }

    /// Takes a tree in, and what ends in it.
    pub(super) fn touch(&mut self, root: &TaskId, member: Option<(Timestamp, &TaskId)>) {
        let never = Timestamp::from_micros(i64::MIN);
        let (end, members) = self.trees.entry(root.clone()).or_insert_with(|| (never, BTreeSet::new()));
        self.tree_ends.remove(&(*end, root.clone()));
        if let Some((ends_at, id)) = member {
            *end = ends_at.max(*end);
            members.insert(id.clone());
        }
        self.tree_ends.insert((*end, root.clone()));
    }

    /// Somebody ended it.
    pub(super) fn end(&mut self, kept: &Kept) {
        self.open.remove(kept);
        self.open_ends.remove(&(kept.ends_at(), kept.task.id.clone()));
    }

    /// The next open task that is over by the mark of time.
    pub(super) fn next_over(&self, reached: Timestamp) -> Option<&TaskId> {
        self.open_ends.first().filter(|(end, _)| reached >= *end).map(|(_, id)| id)
    }

    /// Lets go of a task.
    pub(super) fn forget(&mut self, kept: &Kept) {
        self.end(kept);
        self.held.remove(kept);
        if let Some((_, members)) = self.trees.get_mut(&kept.task.root) {
            members.remove(&kept.task.id);
        }
    }

    /// Lets go of a tree.
    pub(super) fn fell(&mut self, root: &TaskId) {
        if let Some((end, _)) = self.trees.remove(root) {
            self.tree_ends.remove(&(end, root.clone()));
        }
    }

    /// Tasks, newest first: all, or those that may count.
    pub(super) fn newest_first(
        &self,
        principal: Option<&str>,
        ended_too: bool,
    ) -> Box<dyn Iterator<Item = &TaskId> + '_> {
        if ended_too { self.held.newest_first(principal) } else { self.open.newest_first(principal) }
    }

    /// When the first task that is held of a principal began.
    pub(super) fn first_of(&self, principal: &SpiffeId) -> Option<Timestamp> {
        self.held.of.get(principal).and_then(BTreeSet::first).map(|(begun, _)| *begun)
    }

    /// Trees with their members whose last task ended before then, or just then; the longest past first.
    pub(super) fn past(&self, latest: Timestamp) -> impl Iterator<Item = (&TaskId, &BTreeSet<TaskId>)> {
        let past = self.tree_ends.iter().take_while(move |(end, _)| *end <= latest);
        past.filter_map(|(_, root)| self.trees.get_key_value(root)).map(|(root, (_, members))| (root, members))
    }
}

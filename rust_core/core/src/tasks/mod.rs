//! Tasks, their grants and their chains: what was begun, what has ended, and whether a grant that is presented counts.
//! Changed by `apply` alone, but for what a call touches (`tree.rs`) and when a task was last used.
//!
//! `admit.rs` looks at a grant, `plan.rs` makes a task of what a client asks for, `list.rs` shows them, `order.rs` finds
//! them.

mod admit;
mod list;
mod order;
mod plan;
mod settings;
mod tree;

pub use admit::{Admitted, GrantRefused, Presented};
pub use list::Wanted;
pub use plan::{AskedTask, Planned};
pub use settings::TaskSettings;
pub use tree::{Touch, Touched, Tree};

use crate::change::{Change, StandingLost, TaskEnded, WorkflowMoved};
use crate::limits;
use crate::locks::{read, write};
use crate::model::{Ending, Fingerprint, Span, SpiffeId, Task, TaskId, Timestamp, WorkflowId};
use order::Orders;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, RwLock,
        atomic::{AtomicI64, Ordering},
    },
};

/// The tasks of a running core.
#[derive(Default)]
pub struct Tasks(RwLock<Image>);

#[derive(Default)]
struct Image {
    tasks: BTreeMap<TaskId, Arc<Kept>>,
    grants: BTreeMap<Fingerprint, Arc<Kept>>,
    ended: BTreeMap<TaskId, TaskEnded>,
    trees: BTreeMap<TaskId, Arc<Tree>>,
    workflows: BTreeMap<WorkflowId, WorkflowMoved>,
    lost: BTreeMap<SpiffeId, StandingLost>,
    /// The losses by their time.
    losses: BTreeSet<(Timestamp, SpiffeId)>,
    orders: Orders,
}

/// A task that is held.
#[derive(Debug)]
pub struct Kept {
    /// The task.
    pub task: Task,
    /// What its tree has touched.
    tree: Arc<Tree>,
    /// When it ends by time, in microseconds: as it was begun, or earlier where the clock was set back since.
    ends_at: AtomicI64,
    /// When it was last used, in microseconds; in memory alone, so after a restart it lies idle from its beginning on.
    used_at: AtomicI64,
}

/// What else a task stands on, that other rooms know.
pub trait Support {
    /// Whether a revocation names its grant, or its principal.
    fn is_revoked(&self, task: &Task) -> bool;

    /// Whether the orchestrator's signal says, fresh, that a workflow is approved.
    fn is_vouched_for(&self, workflow: &WorkflowId) -> bool;
}

/// How a task stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskState {
    /// It counts.
    Live,
    /// It was done.
    Completed,
    /// It was taken back.
    Revoked,
    /// Its workflow has ended, or is not approved any more.
    WorkflowEnded,
    /// Its workflow was approved by a signal that is not fresh.
    WorkflowUnknown,
    /// Its principal's standing was lost.
    StandingLost,
    /// Its time is over, or it lay idle for too long.
    Expired,
    /// A task above it counts no more.
    ParentEnded,
}

impl TaskState {
    /// Every state, with its word.
    pub const ALL: &'static [(&'static str, Self)] = &[
        ("live", Self::Live),
        ("completed", Self::Completed),
        ("revoked", Self::Revoked),
        ("workflow_ended", Self::WorkflowEnded),
        ("workflow_unknown", Self::WorkflowUnknown),
        ("standing_lost", Self::StandingLost),
        ("expired", Self::Expired),
        ("parent_ended", Self::ParentEnded),
    ];

    /// The word.
    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(_, state)| *state == self).map_or("", |(word, _)| word)
    }
}

impl Kept {
    fn used(&self, now: Timestamp) {
        self.used_at.fetch_max(now.as_micros(), Ordering::Relaxed);
    }

    /// When it ends by time, idle or not.
    pub fn ends_at(&self) -> Timestamp {
        Timestamp::from_micros(self.ends_at.load(Ordering::Relaxed))
    }

    /// Until when it may lie idle.
    fn idle_until(&self) -> Option<Timestamp> {
        let used = Timestamp::from_micros(self.used_at.load(Ordering::Relaxed));
        self.task.idle.map(|idle| used.max(self.task.begun_at).plus(idle))
    }
}

impl Image {
    /// A task and those above it, itself first. `None` if one of them is not held: nobody could say how it stands.
    fn line(&self, kept: &Arc<Kept>) -> Option<Vec<Arc<Kept>>> {
        let mut line = vec![Arc::clone(kept)];
        while let Some(parent) = line.last().and_then(|last| last.task.parent.as_ref()) {
            if line.len() > limits::MAX_CHAIN {
                return None;
            }
            line.push(Arc::clone(self.tasks.get(parent)?));
        }
        Some(line)
    }

    /// How a task stands, those above it left aside.
    fn own_state(&self, kept: &Kept, support: &dyn Support, now: Timestamp) -> TaskState {
        let task = &kept.task;
        if let Some(ended) = self.ended.get(&task.id) {
            return match ended.how {
                Ending::Completed => TaskState::Completed,
                Ending::Revoked => TaskState::Revoked,
            };
        }
        if self.lost.get(&task.principal).is_some_and(|lost| task.begun_at <= lost.at) || support.is_revoked(task) {
            return TaskState::StandingLost;
        }
        if let Some(workflow) = &task.workflow {
            match self.workflow_state(workflow, task.begun_at, support) {
                TaskState::Live => {}
                other => return other,
            }
        }
        let is_over = now >= kept.ends_at() || kept.idle_until().is_some_and(|until| now >= until);
        if is_over { TaskState::Expired } else { TaskState::Live }
    }

    /// How a workflow stands for a task that began then.
    fn workflow_state(&self, id: &WorkflowId, begun_at: Timestamp, support: &dyn Support) -> TaskState {
        match self.workflows.get(id) {
            Some(known) if known.approved && known.ended_at.is_none_or(|ended| begun_at > ended) => {
                // INVARIANT I2: what a signal said counts only while the signal does.
                if known.by_signal && !support.is_vouched_for(id) {
                    TaskState::WorkflowUnknown
                } else {
                    TaskState::Live
                }
            }
            _ => TaskState::WorkflowEnded,
        }
    }

    /// How a task stands with all that stands above it.
    fn state(&self, kept: &Arc<Kept>, support: &dyn Support, now: Timestamp) -> TaskState {
        match self.own_state(kept, support, now) {
            TaskState::Live => {}
            other => return other,
        }
        let Some(line) = self.line(kept) else { return TaskState::ParentEnded };
        let above = line.iter().skip(1).all(|kept| self.own_state(kept, support, now) == TaskState::Live);
        if above { TaskState::Live } else { TaskState::ParentEnded }
    }
}

impl Tasks {
    /// Takes a change in; false if it is none of ours. Idempotent. `is_new`: it happens now, and is not read back.
    pub fn apply(&self, change: &Change, is_new: bool) -> bool {
        let mut image = write(&self.0);
        match change {
            Change::TaskBegun(task) => begin(&mut image, task, is_new),
            Change::TaskEnded(ended) => end(&mut image, ended),
            Change::TreeTouched(touched) => {
                let tree = image.trees.entry(touched.root.clone()).or_insert_with(|| Arc::new(Tree::new(false)));
                tree.keep(touched);
                image.orders.touch(&touched.root, None);
            }
            Change::WorkflowMoved(moved) => {
                let known = image.workflows.entry(moved.id.clone()).or_insert_with(|| moved.clone());
                let ended_at = known.ended_at.max(moved.ended_at);
                *known = WorkflowMoved { ended_at, ..moved.clone() };
            }
            Change::StandingLost(lost) => lose(&mut image, lost),
            _ => return false,
        }
        true
    }

    /// Ends all that is held, since the clock was set back; the latest time of all that this moves. An end that lies ahead
    /// has done its work with that, and locks nobody out who begins anew.
    pub fn cut(&self, at: Timestamp) -> Option<Timestamp> {
        let mut image = write(&self.0);
        let before = Timestamp::from_micros(at.as_micros().saturating_sub(1));
        let mut latest = None;
        let Image { tasks, ended, trees, lost, losses, workflows, orders, .. } = &mut *image;
        *orders = Orders::default();
        for root in trees.keys() {
            orders.touch(root, None);
        }
        for kept in tasks.values() {
            latest = latest.max(Some(kept.task.expires_at));
            kept.ends_at.fetch_min(at.as_micros(), Ordering::Relaxed);
            orders.begin(kept, ended.contains_key(&kept.task.id));
        }
        for lost in lost.values_mut() {
            latest = latest.max(Some(lost.at));
            lost.at = lost.at.min(before);
        }
        *losses = lost.values().map(|lost| (lost.at, lost.principal.clone())).collect();
        for moved in workflows.values_mut() {
            latest = latest.max(moved.ended_at);
            moved.ended_at = moved.ended_at.map(|ended| ended.min(before));
        }
        latest
    }

    /// How a workflow stands, if anything is known of it.
    pub fn workflow(&self, id: &WorkflowId) -> Option<WorkflowMoved> {
        read(&self.0).workflows.get(id).cloned()
    }

    /// Up to when whatever a principal was given counts no more.
    pub fn lost_until(&self, principal: &SpiffeId) -> Option<Timestamp> {
        read(&self.0).lost.get(principal).map(|lost| lost.at)
    }

    /// Tasks held.
    pub fn count(&self) -> usize {
        read(&self.0).tasks.len()
    }

    /// Keys of kept changes of what ended so long ago that nobody asks any more, at most so many. A tree goes as a whole,
    /// so that no child is left without those above it. `reached`: the mark of time, by which what is over stays over.
    pub fn expired(&self, retention: Span, most: usize, now: Timestamp, reached: Timestamp) -> Vec<String> {
        self.retire(reached);
        let image = read(&self.0);
        let mut keys = Vec::new();
        for (root, members) in image.orders.past(now.minus(retention)) {
            for id in members {
                keys.push(format!("task {id}"));
                keys.extend(image.ended.contains_key(id).then(|| format!("task_end {id}")));
            }
            keys.push(format!("touched {root}"));
            if keys.len() >= most {
                break;
            }
        }
        // A loss says something of tasks begun up to it, and of none that begins later.
        let old = image.losses.iter().take_while(|(at, _)| now >= at.plus(retention));
        let over = old.filter(|(at, who)| image.orders.first_of(who).is_none_or(|begun| begun > *at));
        keys.extend(over.take(most.saturating_sub(keys.len())).map(|(_, who)| format!("standing {}", who.as_str())));
        keys
    }

    /// Sorts out what is over for good.
    fn retire(&self, reached: Timestamp) {
        if read(&self.0).orders.next_over(reached).is_none() {
            return;
        }
        let mut image = write(&self.0);
        let Image { orders, tasks, .. } = &mut *image;
        while let Some(kept) = orders.next_over(reached).and_then(|id| tasks.get(id)) {
            orders.end(kept);
        }
    }

    /// Lets go of what these keys name, once they are gone from where they were kept.
    pub fn forget(&self, keys: &[String]) {
        let mut image = write(&self.0);
        for key in keys {
            let Some((kind, id)) = key.split_once(' ') else { continue };
            if kind == "standing" {
                let lost = SpiffeId::parse(id).ok().and_then(|principal| image.lost.remove(&principal));
                lost.map(|lost| image.losses.remove(&(lost.at, lost.principal)));
                continue;
            }
            let Some(id) = TaskId::parse(id) else { continue };
            match kind {
                "task" => {
                    if let Some(kept) = image.tasks.remove(&id) {
                        image.grants.remove(&kept.task.grant);
                        image.orders.forget(&kept);
                    }
                }
                "task_end" => drop(image.ended.remove(&id)),
                "touched" => {
                    image.trees.remove(&id);
                    image.orders.fell(&id);
                }
                _ => {}
            }
        }
    }
}

fn begin(image: &mut Image, task: &Task, is_new: bool) {
    if image.tasks.contains_key(&task.id) {
        return;
    }
    let tree = image.trees.entry(task.root.clone()).or_insert_with(|| Arc::new(Tree::new(is_new)));
    let tree = Arc::clone(tree);
    let used_at = AtomicI64::new(task.begun_at.as_micros());
    let ends_at = AtomicI64::new(task.expires_at.as_micros());
    let kept = Arc::new(Kept { task: task.clone(), tree, ends_at, used_at });
    image.orders.begin(&kept, image.ended.contains_key(&task.id));
    image.grants.insert(task.grant, Arc::clone(&kept));
    image.tasks.insert(task.id.clone(), kept);
}

fn end(image: &mut Image, ended: &TaskEnded) {
    image.ended.entry(ended.id.clone()).or_insert_with(|| ended.clone());
    if let Some(kept) = image.tasks.get(&ended.id) {
        image.orders.end(kept);
    }
}

fn lose(image: &mut Image, lost: &StandingLost) {
    let known = image.lost.get(&lost.principal).map(|known| known.at);
    if known.is_some_and(|known| known >= lost.at) {
        return;
    }
    known.map(|known| image.losses.remove(&(known, lost.principal.clone())));
    image.losses.insert((lost.at, lost.principal.clone()));
    image.lost.insert(lost.principal.clone(), lost.clone());
}

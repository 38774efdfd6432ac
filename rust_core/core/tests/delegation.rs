//! I6 over generated trees: along any sequence of delegations, uses, ends and moves of time, what a child reaches never
//! exceeds what its parent reaches, and nothing that has ended counts again.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod stage;

use proptest::prelude::*;
use serde_json::{Value as Json, json};
use signalwarden_core::{
    change::Change,
    engine::{Asking, Engine, Look, Proposal},
    error::Error,
    identity::Validated,
    model::{Body, HeaderEntry, Headers, Peer, Request, SpiffeId, Timestamp},
    record::InfluenceMode,
    wire,
};
use std::{
    collections::BTreeMap,
    fmt::Write,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

const START: i64 = 1_795_500_000_000_000;
const SECOND: i64 = 1_000_000;
const SYSTEMS: [&str; 3] = ["notes", "crm", "mail"];
const LEVELS: [&str; 3] = ["low", "medium", "high"];
const ENVIRONMENTS: [&str; 2] = ["prod", "test"];
const PEOPLE: usize = 3;

/// An action for each system, sensitivity and environment.
fn actions() -> Vec<String> {
    let mut all = Vec::new();
    for system in SYSTEMS {
        for level in LEVELS {
            all.extend(ENVIRONMENTS.map(|environment| format!("{system}.{level}.{environment}")));
        }
    }
    all
}

fn routes() -> String {
    let mut text = "routes:\n".to_owned();
    for action in actions() {
        let parts: Vec<&str> = action.split('.').collect();
        let [system, level, environment] = parts.as_slice() else { panic!() };
        writeln!(
            text,
            "  - {{match: {{host: h, method: GET, path: \"/{action}/{{id}}\"}}, action: {action}, \
             resource: {{type: Page, id: \"{{id}}\"}}, system: {system}, tier: jit, sensitivity: {level}, \
             environment: {environment}}}"
        )
        .unwrap();
    }
    text + "default: deny\n"
}

const POLICIES: &str = r#"
permit (principal, action == Action::"task.begin", resource);
permit (principal, action == Action::"task.delegate", resource);
permit (principal, action, resource) unless { context.chain.systems.contains("mail") && context.chain.depth > 0 };
"#;

fn engine() -> Engine {
    let (routes, schema) = (routes(), "entity Workload; entity Page;");
    let texts = stage::Texts { routes: &routes, signals: "signals: {}\n", schema, policies: POLICIES };
    let snapshot = stage::load(&texts, "t", Timestamp::from_micros(START)).unwrap_or_else(|error| panic!("{error}"));
    stage::engine(Arc::new(snapshot), 100_000, InfluenceMode::None)
}

fn person(at: usize) -> SpiffeId {
    SpiffeId::parse(&format!("spiffe://t/{at}")).unwrap()
}

/// What a step does.
#[derive(Clone, Debug)]
enum Step {
    Begin { who: usize, scope: Scope },
    Delegate { of: usize, to: usize, scope: Scope },
    End { of: usize, revoke: bool },
    Use { of: usize, action: usize, page: usize },
    Wait { seconds: i64 },
    Workflow { approved: bool },
}

#[derive(Clone, Debug)]
struct Scope {
    actions: Vec<usize>,
    pages: Option<Vec<usize>>,
    level: Option<usize>,
    environment: Option<usize>,
    ttl: Option<i64>,
    workflow: bool,
}

fn scope() -> impl Strategy<Value = Scope> {
    let actions = proptest::collection::vec(0..18_usize, 1..6);
    let pages = proptest::option::of(proptest::collection::vec(0..3_usize, 1..3));
    let ttl = proptest::option::of(1..300_i64);
    (
        actions,
        pages,
        proptest::option::of(0..3_usize),
        proptest::option::weighted(0.9, Just(0_usize)),
        ttl,
        any::<bool>(),
    )
        .prop_map(|(actions, pages, level, environment, ttl, workflow)| Scope {
            actions,
            pages,
            level,
            environment,
            ttl,
            workflow,
        })
}

/// A scope that mostly lies within another one: what is drawn at random hardly ever does.
fn near(drawn: &Scope, parent: &Scope) -> Scope {
    if drawn.actions.len() == 5 {
        return drawn.clone();
    }
    let actions = drawn.actions.iter().map(|at| parent.actions[at % parent.actions.len()]).collect();
    let pages = match (&parent.pages, &drawn.pages) {
        (Some(parent), _) if !drawn.actions[0].is_multiple_of(3) => Some(parent.clone()),
        (_, drawn) => drawn.clone(),
    };
    let level = drawn.level.filter(|level| level % 2 == 0);
    Scope { actions, pages, level, environment: None, ttl: drawn.ttl.filter(|ttl| *ttl < 30), workflow: false }
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => (0..PEOPLE, scope()).prop_map(|(who, scope)| Step::Begin { who, scope }),
        8 => (any::<usize>(), 0..PEOPLE, scope()).prop_map(|(of, to, scope)| Step::Delegate { of, to, scope }),
        2 => (any::<usize>(), any::<bool>()).prop_map(|(of, revoke)| Step::End { of, revoke }),
        6 => (any::<usize>(), 0..18_usize, 0..3_usize).prop_map(|(of, action, page)| Step::Use { of, action, page }),
        1 => (1..120_i64).prop_map(|seconds| Step::Wait { seconds }),
        1 => any::<bool>().prop_map(|approved| Step::Workflow { approved }),
    ]
}

struct World {
    engine: Engine,
    now: i64,
    made: u8,
    /// Each task with its grant, its holder and its parent.
    tasks: Vec<(String, String, usize, Option<usize>)>,
    /// What was asked for each.
    scopes: Vec<Scope>,
}

impl World {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.now)
    }

    fn keep(&self, changes: &[Change]) {
        let payloads: Vec<_> = changes.iter().map(Change::to_payload).collect();
        self.engine.apply(&payloads, self.now()).unwrap();
    }

    fn propose(&mut self, asked: &Json, client: &SpiffeId) -> Result<Proposal, Error> {
        self.made = self.made.wrapping_add(1);
        let (now, random) = (self.now(), [self.made; 10]);
        let asking = Asking { client, certificate: None, now, random, ticks: &|| 0 };
        let mut id = [self.made; 10];
        id[0] = u8::try_from(self.tasks.len() % 256).unwrap();
        self.engine.propose_task(asked.to_string().as_bytes(), &asking, id)
    }

    fn begin(&mut self, scope: &Scope, who: usize, parent: Option<usize>) -> bool {
        let names = actions();
        let above = parent.map(|at| self.tasks[at].clone());
        let client = person(above.as_ref().map_or(who, |(_, _, holder, _)| *holder));
        let pages = scope.pages.as_ref();
        let asked = json!({
            "principal": person(who).as_str(),
            "type": "t",
            "actions": scope.actions.iter().map(|at| &names[*at]).collect::<Vec<_>>(),
            "resources": pages.map_or_else(
                || vec!["Page::*".to_owned()],
                |pages| pages.iter().map(|page| format!("Page::\"{page}\"")).collect(),
            ),
            "sensitivity": scope.level.map(|at| LEVELS[at]),
            "environment": scope.environment.map(|at| ENVIRONMENTS[at]),
            "ttl_us": scope.ttl.map(|seconds| seconds * SECOND),
            "workflow": (scope.workflow && parent.is_none()).then_some("w"),
            "parent": above.as_ref().map(|(id, ..)| id),
        });
        let Ok(proposal) = self.propose(&asked, &client) else { return false };
        let grant = format!("grant-{}", self.tasks.len());
        let Ok(change) = self.engine.issue_task(&proposal, grant.as_bytes(), self.now()) else { return false };
        self.keep(&[change]);
        self.tasks.push((proposal.task().id.to_string(), grant, who, parent));
        self.scopes.push(scope.clone());
        true
    }

    fn reason(&self, task: usize, action: &str, page: usize) -> String {
        let (_, grant, holder, _) = &self.tasks[task];
        let headers = vec![HeaderEntry { name: "x-signalwarden-grant".into(), value: grant.clone(), is_utf8: true }];
        let request = Request {
            method: "GET".into(),
            path: format!("/{action}/{page}"),
            host: "h".into(),
            headers: Headers::new(headers),
            source: Peer { principal: person(*holder).as_str().into(), ..Peer::default() },
            body: Body::NotForwarded,
            ..Request::default()
        };
        let bytes = wire::encode_request(&request);
        match self.engine.check(&bytes, &Validated::default(), self.now(), [1; 10], &|| 0) {
            Look::Held(held) => {
                self.keep(&held.keeping().changes);
                let (_, undo) = self.engine.finish(*held, true);
                assert!(undo.is_none());
            }
            Look::Answer(_) => {}
            Look::Pending(_) => panic!("no token is asked for"),
        }
        let (lines, count) = self.engine.drain(1_000);
        assert!(count > 0);
        let last = lines.split(|byte| *byte == b'\n').rfind(|line| !line.is_empty()).unwrap();
        serde_json::from_slice::<Json>(last).unwrap()["reason"].as_str().unwrap().to_owned()
    }

    /// Whether the grant itself covers a call; what policies say is another question.
    fn reaches(&self, task: usize, action: &str, page: usize) -> bool {
        !self.reason(task, action, page).starts_with("grant_")
    }

    fn state(&self, task: usize) -> String {
        let (id, ..) = &self.tasks[task];
        let wanted = signalwarden_core::tasks::Wanted { id: Some(id), principal: None, ended: true, most: 1 };
        let listed = self.engine.list_tasks(&wanted, self.now());
        listed["tasks"][0]["state"].as_str().unwrap().to_owned()
    }

    fn take(&mut self, step: &Step) {
        let pick = |at: usize, all: usize| if all == 0 { None } else { Some(at % all) };
        match step {
            Step::Begin { who, scope } => drop(self.begin(scope, *who, None)),
            Step::Delegate { of, to, scope } => {
                if let Some(parent) = pick(*of, self.tasks.len()) {
                    let scope = near(scope, &self.scopes[parent]);
                    self.begin(&scope, *to, Some(parent));
                }
            }
            Step::End { of, revoke } => {
                let Some(at) = pick(*of, self.tasks.len()) else { return };
                let how = if *revoke { "revoked" } else { "completed" };
                let (id, _, holder, _) = &self.tasks[at];
                if let Ok(change) = self.engine.end_task(id, how, &person(*holder), false, self.now()) {
                    self.keep(&[change]);
                }
            }
            Step::Use { of, action, page } => {
                if let Some(at) = pick(*of, self.tasks.len()) {
                    self.reason(at, &actions()[*action], *page);
                }
            }
            Step::Wait { seconds } => self.now += seconds * SECOND,
            Step::Workflow { approved } => {
                let state = if *approved { "approved" } else { "ended" };
                let change = self.engine.move_workflow("w", state, &person(0), self.now()).unwrap();
                self.keep(&[change]);
            }
        }
    }
}

static TREES: AtomicUsize = AtomicUsize::new(0);
static CHILDREN: AtomicUsize = AtomicUsize::new(0);
static REACHED: AtomicUsize = AtomicUsize::new(0);

fn check(steps: &[Step]) {
    let mut world = World { engine: engine(), now: START, made: 0, tasks: Vec::new(), scopes: Vec::new() };
    let approved = world.engine.move_workflow("w", "approved", &person(0), world.now()).unwrap();
    world.keep(&[approved]);
    let mut over: BTreeMap<usize, String> = BTreeMap::new();
    for step in steps {
        world.take(step);
        for task in 0..world.tasks.len() {
            let state = world.state(task);
            // What has ended never counts again.
            match over.get(&task) {
                Some(ended) => assert_ne!(state, "live", "task {task} was {ended}, after {step:?}"),
                None if state != "live" => drop(over.insert(task, state)),
                None => {}
            }
        }
    }
    let names = actions();
    for (child, (.., parent)) in world.tasks.iter().enumerate() {
        let Some(parent) = *parent else {
            TREES.fetch_add(1, Ordering::Relaxed);
            continue;
        };
        CHILDREN.fetch_add(1, Ordering::Relaxed);
        for action in &names {
            for page in 0..3 {
                if world.reaches(child, action, page) {
                    REACHED.fetch_add(1, Ordering::Relaxed);
                    assert!(world.reaches(parent, action, page), "{action} {page}: task {child}, parent {parent}");
                    assert!(!over.contains_key(&child));
                }
            }
        }
    }
}

#[test]
fn a_child_never_reaches_what_its_parent_does_not_and_nothing_that_ended_counts_again() {
    let cases = std::env::var("SIGNALWARDEN_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(400);
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    runner
        .run(&proptest::collection::vec(step(), 1..40), |steps| {
            check(&steps);
            Ok(())
        })
        .unwrap();
    let (trees, children, reached) =
        (TREES.load(Ordering::Relaxed), CHILDREN.load(Ordering::Relaxed), REACHED.load(Ordering::Relaxed));
    println!("{trees} trees, {children} children, {reached} calls that a child reaches");
    assert!(trees > 200 && children > 200 && reached > 100, "{trees} trees, {children} children, {reached} reached");
}

//! Every bound on what an outsider can send, with its reason and its precedent.

/// Largest `CheckRequest`. gRPC's own default for a received message, and that of OPA's Envoy plugin.
pub const MAX_CHECK_REQUEST_BYTES: usize = 4 * 1024 * 1024;
/// Most headers of one request. Envoy's own `max_headers_count` default is 100; proxies in front may add.
pub const MAX_HEADERS: usize = 256;
/// Longest path with query. Envoy's default limit for all request headers together is 60 KiB.
pub const MAX_PATH_BYTES: usize = 16 * 1024;
/// Deepest nesting of metadata and JSON bodies that is read. `serde_json`'s own bound is 128.
pub const MAX_DEPTH: usize = 32;
/// Longest SPIFFE ID: 2048 bytes (SPIFFE ID specification, section 2.3).
pub const MAX_SPIFFE_ID_BYTES: usize = 2048;
/// Longest trust domain name: 255 bytes (SPIFFE ID specification, section 2.1).
pub const MAX_TRUST_DOMAIN_BYTES: usize = 255;
/// Longest owner of a principal: it stands in each of its records. A mail address has at most 254 bytes (RFC 5321).
pub const MAX_OWNER_BYTES: usize = 254;
/// Largest file of a configuration directory. A hundred thousand entities, links or policies take about half of this.
pub const MAX_FILE_BYTES: usize = 32 * 1024 * 1024;
/// Deepest nesting of a YAML file. The formats of DESIGN section 5 need six.
pub const MAX_YAML_DEPTH: usize = 32;
/// Longest value of a signal, in bytes of its JSON. A signal is a fact, not a document.
pub const MAX_SIGNAL_VALUE_BYTES: usize = 4 * 1024;
/// Most members of a signal of type `set`.
pub const MAX_SET_MEMBERS: usize = 128;
/// Longest subject of a signal. A SPIFFE ID is the longest thing that a subject is made of.
pub const MAX_SUBJECT_BYTES: usize = MAX_SPIFFE_ID_BYTES + 256;
/// Most signals in one call of a publisher. Larger batches gain no speed and hold the writer.
pub const MAX_BATCH: usize = 1_000;
/// Largest body of such a call: a full batch of usual values is a tenth of it. The admin door has the same bound.
pub const MAX_PUBLISH_BYTES: usize = 2 * 1024 * 1024;
/// Most live values in the store; a further subject is refused, a known one is still updated.
pub const MAX_LIVE_SIGNALS: usize = 2_000_000;
/// How far `observed_at` may lie ahead of our clock. Kubernetes and OIDC libraries allow seconds, too.
pub const MAX_CLOCK_SKEW_MICROS: i64 = 5_000_000;
/// How far the persisted time mark may run ahead of what a stopwatch vouches for, so that a bad clock
/// reading does not expire the world for good: an hour; the usual step limit of a time daemon is less.
pub const MAX_TIME_STEP_MICROS: i64 = 3_600_000_000;
/// Most mixes of uncertain signals tried for one policy (DESIGN section 6, step 5).
pub const MAX_MIXES: usize = 64;
/// Longest words of a policy's demand for an approval: a sentence or two for whoever answers, kept with each question.
pub const MAX_GATE_WORDS_BYTES: usize = 512;
/// Longest `@reason` of a policy: a sentence and the number of a rule. It is in every record that the policy determines.
pub const MAX_REASON_BYTES: usize = 256;
/// Longest `@advice` of a policy: a sentence and an address to turn to, in the answer to whoever was denied.
pub const MAX_ADVICE_BYTES: usize = 512;
/// Most advice in one answer: of further policies that forbid the same call, the record names each.
pub const MAX_ADVICES: usize = 4;
/// Most links of templates in one file: as many as policies are budgeted for.
pub const MAX_LINKS: usize = 100_000;
/// Largest body of an answer. A denial is a sentence, not a page.
pub const MAX_ANSWER_BODY_BYTES: usize = 16 * 1024;
/// Most headers that one answer sets; Envoy answers 500 when a request passes 100 headers.
pub const MAX_ANSWER_HEADERS: usize = 32;
/// Most bytes that the headers and query parameters of one answer take. Envoy's default for all headers of a
/// request together is 60 KiB, and the client's own share that room.
pub const MAX_ANSWER_HEADER_BYTES: usize = 16 * 1024;
/// Most bytes of dynamic metadata in one answer. It is for the access log, which writes a line.
pub const MAX_ANSWER_METADATA_BYTES: usize = 16 * 1024;
/// Deepest nesting of an answer's dynamic metadata. One level takes three of protobuf's own limit of 100.
pub const MAX_ANSWER_METADATA_DEPTH: usize = 8;
/// Longest method or name of a tool in a message of MCP: what the protocol itself allows a tool.
pub const MAX_MCP_NAME_BYTES: usize = 128;
/// Longest list of the tools that a caller may use, as names: it goes into an answer's metadata, and from there into a
/// header. Some hundred tools; further ones are not shown.
pub const MAX_LISTED_TOOLS_BYTES: usize = 8 * 1024;
/// Largest body that is parsed for policies over the whole request: an authorization reads what a call says, not what it
/// uploads. OPA's Envoy plugin is shown 8 KiB in its own examples.
pub const MAX_PARSED_BODY_BYTES: usize = 1024 * 1024;
/// Deepest nesting of one: with what stands around it, as deep as Rego is given anything.
pub const MAX_PARSED_BODY_DEPTH: usize = 60;
/// Deepest nesting of one message of gRPC, counted through each `Any` that it holds: protobuf's own limit.
pub const MAX_MESSAGE_LEVELS: usize = 100;
/// Most imports of the files of one descriptor set, those included that come with another one, and each as often as it is
/// reached: large organizations have thousands of files with some tens each.
pub const MAX_DESCRIPTOR_IMPORTS: usize = 200_000;
/// Most pairs of one form or query that is parsed for them. Go's own bound, and so that of OPA's Envoy plugin.
pub const MAX_FORM_PAIRS: usize = 10_000;
/// Most parts of one multipart body that is parsed for them. Go's own bound for forms.
pub const MAX_FORM_PARTS: usize = 1_000;
/// Most routes of one file. The index compares them in pairs when it is built; a large gateway has some hundreds.
pub const MAX_ROUTES: usize = 10_000;
/// Most arguments that one route names in one of path, query and body. Policies read a handful.
pub const MAX_ARGUMENTS: usize = 32;
/// Most static facts of one route. A route says how sensitive, how critical, which class: a handful.
pub const MAX_ROUTE_FACTS: usize = 32;
/// Most networks that one `peer` source names. A company's own networks are some hundreds; lists of whole countries
/// belong into a feed.
pub const MAX_NETWORKS: usize = 4_096;
/// Most windows that one `time` source names. A week has 21 shifts.
pub const MAX_WINDOWS: usize = 64;
/// Most measures and windows that a register wants counted. Each costs a look-up in every decision.
pub const MAX_SERIES: usize = 16;
/// Most principals that one measure and window counts at once; whoever was idle for the longest gives way, and is
/// missing for a window. The largest fleets of one trust domain behind one gateway are some ten thousand.
pub const MAX_COUNTED_PRINCIPALS: usize = 32_768;
/// Most signals that are counted by name: as many as policies can tell apart.
pub const MAX_TALLIED_SIGNALS: usize = 65_536;
/// Most origins that are counted by name; beyond, the one that was silent for the longest gives way. Publishers are
/// clients of the settings or names in certificates of our own authority.
pub const MAX_TALLIED_ORIGINS: usize = 4_096;
/// Most routes, with their actions, whose decisions are counted by name: as many as a file may have, and some for those
/// that no route was found for.
pub const MAX_MEASURED_ROUTES: usize = MAX_ROUTES + 16;
/// Longest way from a namespace of Envoy's metadata to a value. A claim of a token lies two or three deep.
pub const MAX_METADATA_KEYS: usize = 8;
/// Longest name of a namespace or key of Envoy's metadata. Names of Envoy's filters have about forty.
pub const MAX_METADATA_NAME_BYTES: usize = 256;
/// Most feeds of a register. Each has a thread of its own.
pub const MAX_FEEDS: usize = 64;
/// Most sources of one signal. Each is read in each decision that the signal matters to.
pub const MAX_SOURCES: usize = 8;
/// Most types of events that one source maps. CAEP 1.0 has eight.
pub const MAX_EVENTS: usize = 32;
/// Most other signals that corroborate one. Each is read in each decision that the signal matters to.
pub const MAX_CORROBORATION: usize = 8;
/// Most approvers of one contract. More than a handful is a committee.
pub const MAX_APPROVERS: usize = 16;
/// Longest address of a feed. Common servers take 8 KiB for the whole request line.
pub const MAX_URL_BYTES: usize = 2 * 1024;
/// Longest token. Servers take some 8 to 16 KiB as all the headers of a request; a token of OAuth has one or two.
pub const MAX_TOKEN_BYTES: usize = 16 * 1024;
/// Most headers that may hold a token. Each is looked at in every request.
pub const MAX_TOKEN_HEADERS: usize = 4;
/// Longest name that a token gives: issuer, subject, `jti`. A SPIFFE ID is the longest that is usual.
pub const MAX_CLAIM_BYTES: usize = MAX_SPIFFE_ID_BYTES;
/// Most proofs of tokens held at once, some 1 KB each; beyond, the oldest give way and are validated again when they
/// come back. A gateway with more live tokens than this has other troubles.
pub const MAX_PROOFS: usize = 65_536;
/// Most authorities whose state is held: issuers, trust domains, status lists.
pub const MAX_AUTHORITIES: usize = 4_096;
/// Most members of one authority. Key sets have a handful; the readers of sets refuse more.
pub const MAX_AUTHORITY_MEMBERS: usize = 1_024;
/// Most revocations in force. Beyond, `issued_before` of an issuer or a subject takes the place of thousands.
pub const MAX_REVOCATIONS: usize = 1_000_000;
/// Largest certificate, as DER. An X.509-SVID has about 1 KiB; keys and signatures that withstand quantum computers
/// (ML-DSA) add some 7 KiB.
pub const MAX_CERTIFICATE_BYTES: usize = 16 * 1024;
/// Longest certificate as URL-encoded PEM. Envoy's default for all headers of a request together is 60 KiB, and
/// Envoy forwards the same text there.
pub const MAX_CERTIFICATE_TEXT_BYTES: usize = 64 * 1024;
/// Longest `x-forwarded-client-cert`, its lines taken together. Envoy's default limit for all request headers together
/// is 60 KiB.
pub const MAX_XFCC_BYTES: usize = 64 * 1024;
/// Most elements of it. Each proxy on the way adds one.
pub const MAX_XFCC_ELEMENTS: usize = 64;
/// Most pairs of one element. A certificate has a handful of names; public ones up to a hundred.
pub const MAX_XFCC_PAIRS: usize = 256;
/// Most tasks held at once, ended ones that are remembered included; some 1 KB each.
pub const MAX_TASKS: usize = 200_000;
/// Most tasks of one chain. Settings allow less.
pub const MAX_CHAIN: usize = 64;
/// Most actions of one task, and most resources: they travel in the grant, a header, and an agent that needs more has a
/// scope that nobody can oversee.
pub const MAX_TASK_ACTIONS: usize = 64;
/// See `MAX_TASK_ACTIONS`; a whole type of resources is one.
pub const MAX_TASK_RESOURCES: usize = 64;
/// Shortest life of a task: below, it is over before its first call has arrived.
pub const MIN_TTL_MICROS: i64 = 1_000_000;
/// Most approvals held at once, answered ones that are remembered included; some 2 KB each.
pub const MAX_APPROVALS: usize = 50_000;
/// Longest comment on an answer: a sentence and the number of an incident.
pub const MAX_COMMENT_BYTES: usize = 2_048;
/// How long an override may last unless the settings say otherwise: a feed that is dead for longer is an incident with
/// people at work on it, who can say it again.
pub const DEFAULT_OVERRIDE_MICROS: i64 = 3_600_000_000;
/// Longest reason of an override: a sentence and the number of an incident. It is in every record that it touches.
pub const MAX_OVERRIDE_REASON_LETTERS: usize = 512;
/// Most overrides in force at once: each takes two people, and all are copied when one is added.
pub const MAX_OVERRIDES: usize = 1_000;
/// Most records that wait to be drained: seconds of a busy server, about 100 MB at the usual size.
pub const MAX_LOG_RECORDS: usize = 65_536;
/// What they hold on to in memory together.
pub const MAX_LOG_MEMORY_BYTES: usize = 256 * 1024 * 1024;
/// Longest line of a decision log that is read back. A record holds what a request of `MAX_CHECK_REQUEST_BYTES` at most was
/// made of; a usual one has a kilobyte or two.
pub const MAX_RECORD_LINE_BYTES: usize = 4 * 1024 * 1024;
/// Most changes of one simulation. People change a handful of signals at a time.
pub const MAX_CHANGES: usize = 1_000;
/// Most signals of one set that is tried for whether an outcome hangs on it. Whoever reads of more learns nothing by it.
pub const MAX_SET_SIGNALS: usize = 4;
/// Most sets that are tried for one decision: all pairs of 45 signals, or all sets of up to four of 12.
pub const MAX_SETS_TRIED: usize = 1_000;
/// Most times that one decision is made again to explain it. A decision takes some tens of microseconds, and a search
/// along one number at most 250 of them.
pub const MAX_TRIALS: usize = 10_000;
/// Most values that are taken from the literals of policies, for one signal. A policy compares with a handful.
pub const MAX_LITERALS: usize = 64;
/// Most values of one signal that are shown as a change that would flip an outcome.
pub const MAX_VALUES_SHOWN: usize = 4;
/// Most changes to two signals at once that are tried, where no change to a single one flips a denial.
pub const MAX_PAIRS_TRIED: usize = 1_000;
/// Most steps of the Rego interpreter in one evaluation. A usual entry point takes some hundred; OPA has no such bound, and
/// the virtual machine of the same interpreter stops at 25,000 instructions of its own, which are larger.
pub const MAX_REGO_STEPS: u64 = 100_000;
/// How many of them are taken between two looks at the budget.
pub const REGO_STEPS_BETWEEN_LOOKS: u64 = 64;
/// Most bytes that built-ins make in one evaluation of Rego: four times the largest request.
pub const MAX_REGO_BYTES: usize = 16 * 1024 * 1024;
/// Deepest that rules of Rego may stand inside one another, in units of about half a kilobyte of a thread's stack. Threads
/// have two megabytes at least.
pub const MAX_REGO_DEPTH: usize = 1_000;
/// Most brackets and signs that may stand open at once in a file of Rego: its parser takes some kilobytes of a thread's stack
/// for each. Policies have about six.
pub const MAX_REGO_BRACKETS: usize = 64;
/// How often the parser of Rego may have to read a file, at most: it tries whether a bracket is a comprehension and reads it
/// again if not, so what stands first in twenty brackets is read a million times.
pub const MAX_REGO_READINGS: u64 = 8;
/// Tokens of Rego that a file is counted as having at least, when its readings are: a small file may be nested more. Together
/// that is about half a second of one core.
pub const MIN_REGO_TOKENS: u64 = 250_000;
/// Largest exponent of a number in a file of Rego: as many digits as a product of two numbers may have.
pub const MAX_REGO_EXPONENT: u64 = 2_048;
/// Most lines of one file of Rego, and most columns of one line. Data belongs into data.json.
pub const MAX_REGO_LINES: usize = 100_000;
/// See `MAX_REGO_LINES`.
pub const MAX_REGO_COLUMNS: u32 = 8 * 1024;
/// Largest result of an entry point: headers, a body and metadata at their own bounds.
pub const MAX_REGO_RESULT_BYTES: usize = 64 * 1024;
/// Deepest nesting of it.
pub const MAX_REGO_RESULT_DEPTH: usize = 16;
/// Deepest nesting of a value that a built-in of Rego is given: `serde_json`'s own bound is 128.
pub const MAX_REGO_VALUE_DEPTH: usize = 128;
/// Most values that an expression of Rego can come to by what it is made of, each counted as often as it stands in it (loops
/// not counted, numbers in words of 64 bits). Policies come to some hundred; what doubles sixteen times does not.
pub const MAX_REGO_GROWTH: u64 = 65_536;
/// Most calls that differ and that one question of another enforcement point is decided for. Routes of one action differ in
/// environment or system at most; a question that could mean more is none.
pub const MAX_CALLS_OF_A_QUESTION: usize = 16;

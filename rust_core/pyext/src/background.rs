//! Work that may wait: done in a thread of lower priority than those that answer, so that where they share a core the
//! answers come first. It still gets its part of a core that is busy all the time.

use std::{panic, thread};

/// What is added to the thread's niceness: about a third of what an answering thread gets of a core that both want.
const LATER: i32 = 5;
/// Bytes of the thread's stack: that of a main thread, on which directories are loaded otherwise.
const STACK_BYTES: usize = 8 * 1024 * 1024;

/// Does the work and waits for it; where no thread can be had, in the caller's. A panic goes on in the caller. The caller's
/// own priority stays what it is: a process without privileges could not raise it again.
pub(crate) fn later<T: Send>(work: impl Fn() -> T + Sync) -> T {
    let lower = || {
        // Elsewhere a niceness is the whole process's.
        #[cfg(target_os = "linux")]
        let _ = rustix::process::nice(LATER);
        work()
    };
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("later".to_owned()).stack_size(STACK_BYTES);
        match thread.spawn_scoped(scope, lower) {
            Ok(running) => running.join().unwrap_or_else(|cause| panic::resume_unwind(cause)),
            Err(_) => work(),
        }
    })
}

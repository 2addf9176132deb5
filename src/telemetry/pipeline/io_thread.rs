//! The thread where all connections to collectors live.

use std::{cell::Cell, future::Future, io, sync::mpsc, thread::JoinHandle, time::Duration};

use opentelemetry::Context;
use tokio::{
    runtime::{Builder, Handle},
    sync::oneshot,
};

thread_local! {
    static IS_EXPORTING: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread belongs to the export, so that what it traces or logs must not be exported.
///
/// The thread decides, because others replace the current context.
pub(crate) fn is_exporting() -> bool {
    IS_EXPORTING.get()
}

/// A thread with its own runtime.
///
/// Exporting on the service's runtime would end with that runtime, before the last spans are out,
/// and waiting for it there would hang a runtime of one thread.
#[derive(Debug)]
pub(crate) struct IoThread {
    runtime: Handle,
    stop: oneshot::Sender<()>,
    ended: mpsc::Receiver<()>,
    thread: JoinHandle<()>,
}

impl IoThread {
    pub(crate) fn start() -> io::Result<Self> {
        let runtime = Builder::new_current_thread()
            .enable_all()
            // The threads on which names are looked up.
            .on_thread_start(|| IS_EXPORTING.set(true))
            .build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel();
        let (end, ended) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("image-trace-io".to_owned())
            .spawn(move || {
                IS_EXPORTING.set(true);
                // For providers of the service's own.
                let _suppressed = Context::enter_telemetry_suppressed_scope();
                let _ = runtime.block_on(stopped);
                // A name lookup that hangs on the blocking pool must not hold up the end.
                runtime.shutdown_timeout(Duration::from_millis(50));
                drop(end);
            })?;
        Ok(Self {
            runtime: handle,
            stop,
            ended,
            thread,
        })
    }

    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.runtime.spawn(task);
    }

    /// Ends the thread; what its tasks have not done by then is not done.
    ///
    /// A thread that does not end within `timeout` is left behind.
    pub(super) fn stop(self, timeout: Duration) {
        let _ = self.stop.send(());
        if self.ended.recv_timeout(timeout) == Err(mpsc::RecvTimeoutError::Disconnected) {
            let _ = self.thread.join();
        }
    }
}

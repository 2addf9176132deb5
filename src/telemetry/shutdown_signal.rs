#[cfg(feature = "page")]
use std::sync::LazyLock;
use std::{future, io, sync::mpsc, task::Poll, thread};

#[cfg(unix)]
use tokio::signal::unix;
#[cfg(windows)]
use tokio::signal::windows;
#[cfg(feature = "page")]
use tokio::sync::watch;
use tokio::{runtime::Builder, sync::oneshot};

/// Completes when the process is asked to stop: by SIGINT (Ctrl-C) or SIGTERM, on Windows by Ctrl-C or
/// Ctrl-Break.
///
/// Pass it to a server's graceful shutdown, so that running requests are answered and
/// [`Telemetry::shutdown`](crate::Telemetry::shutdown) is reached, which sends the last spans. Without
/// it the signal ends the process at once, and what is still queued is lost.
///
/// ```no_run
/// # #[cfg(feature = "axum")]
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// use std::{net::SocketAddr, time::Duration};
/// use axum::Router;
/// use tower_image_trace::{Telemetry, shutdown_signal};
///
/// let telemetry = Telemetry::from_env()?;
/// let app: Router = Router::new().layer(telemetry.trace_layer());
/// let listener = tokio::net::TcpListener::bind("127.0.0.1:8080").await?;
/// axum::serve(listener, app.into_make_service_with_connect_info::<SocketAddr>())
///     .with_graceful_shutdown(shutdown_signal())
///     .await?;
/// telemetry.shutdown(Duration::from_secs(5)).await?;
/// # Ok(())
/// # }
/// ```
///
/// A graceful shutdown waits for all requests, however long a client takes. To bound it, drop what is
/// left after a while: `examples/image_proxy/main.rs` shows how.
///
/// The signals are caught from this call on, by a thread of its own, so the future works on every kind
/// of runtime. From then on they no longer end the process, even if the future is dropped, and a second
/// signal does nothing. If they cannot be caught, that is logged, and the future never completes.
pub fn shutdown_signal() -> impl Future<Output = ()> + Send + 'static {
    let (stop, stopped) = oneshot::channel();
    if let Err(error) = catch(stop) {
        tracing::error!(
            target: "tower_image_trace::telemetry",
            "SIGINT and SIGTERM cannot be caught and will end the process at once: {error}"
        );
    }
    wait(stopped)
}

/// Whether a signal has come.
#[cfg(feature = "page")]
static STOPPING: LazyLock<watch::Sender<bool>> = LazyLock::new(|| watch::Sender::new(false));

/// Completes when a signal has come that [`shutdown_signal`] caught.
#[cfg(feature = "page")]
pub(crate) async fn asked_to_stop() {
    // The sender is never dropped.
    let _ = STOPPING.subscribe().wait_for(|stopping| *stopping).await;
}

async fn wait(stopped: oneshot::Receiver<()>) {
    // The sender is lost without a signal when nothing could be caught.
    if stopped.await.is_err() {
        future::pending().await
    }
}

/// Returns when the signals are caught, and tells `stop` of the first one.
fn catch(mut stop: oneshot::Sender<()>) -> io::Result<()> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let (caught, catching) = mpsc::channel();
    thread::Builder::new()
        .name("image-trace-signal".to_owned())
        .spawn(move || {
            let _entered = runtime.enter();
            let (mut interrupt, mut terminate) = match signals() {
                Ok(signals) => signals,
                Err(error) => return drop(caught.send(Err(error))),
            };
            let _ = caught.send(Ok(()));
            runtime.block_on(future::poll_fn(|context| {
                let dropped = stop.poll_closed(context).is_ready();
                let signalled = interrupt.poll_recv(context).is_ready()
                    || terminate.poll_recv(context).is_ready();
                match dropped || signalled {
                    true => Poll::Ready(()),
                    false => Poll::Pending,
                }
            }));
            #[cfg(feature = "page")]
            if !stop.is_closed() {
                STOPPING.send_replace(true);
            }
            let _ = stop.send(());
        })?;
    catching
        .recv()
        .unwrap_or_else(|_| Err(io::Error::other("their thread ended")))
}

#[cfg(unix)]
fn signals() -> io::Result<(unix::Signal, unix::Signal)> {
    let interrupt = unix::signal(unix::SignalKind::interrupt())?;
    Ok((interrupt, unix::signal(unix::SignalKind::terminate())?))
}

#[cfg(windows)]
fn signals() -> io::Result<(windows::CtrlC, windows::CtrlBreak)> {
    Ok((windows::ctrl_c()?, windows::ctrl_break()?))
}

#[cfg(test)]
mod tests {
    use std::{
        pin::pin,
        task::{Context, Waker},
    };

    use super::*;

    /// Without any runtime, as on a runtime without signals of its own. Real signals are sent to the examples, in
    /// `tests/image_proxy/signals.rs`.
    #[test]
    fn nothing_completes_without_a_signal() {
        let mut signal = pin!(shutdown_signal());
        let mut context = Context::from_waker(Waker::noop());
        assert!(signal.as_mut().poll(&mut context).is_pending());
    }

    /// A signal that cannot be caught is no signal.
    #[tokio::test(start_paused = true)]
    async fn a_lost_sender_is_no_signal() {
        let (stop, stopped) = oneshot::channel();
        drop(stop);
        let waited = tokio::time::timeout(std::time::Duration::from_secs(1), wait(stopped)).await;
        assert!(waited.is_err());
    }
}

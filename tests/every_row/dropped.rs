//! Connections that are dropped at any moment of a streamed response leave nothing behind.

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt, stream};
use http_body_util::BodyExt;

use super::stack::{Server, Stack};

const CONNECTIONS: u64 = 500;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_connections_dropped_while_they_stream() {
    for stack in [Stack::Hyper2, Stack::Tonic] {
        let server = Arc::new(Server::start(stack).await);
        stream::iter(0..CONNECTIONS)
            .for_each_concurrent(50, |index| {
                let server = Arc::clone(&server);
                async move { open_and_drop(&server, index).await }
            })
            .await;

        // A server learns of a dropped connection when it comes to write to it.
        while server.in_progress.requests() > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let measured = || {
            let metrics = match stack {
                Stack::Tonic => "rpc.server.call.duration",
                _ => "http.server.request.duration",
            };
            let series = server.recorder.series(metrics);
            series.iter().map(|series| series.count).sum::<u64>()
        };
        while (server.roots().len() as u64) < measured() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let roots = server.roots();
        assert_eq!(roots.len() as u64, measured());
        assert!(
            roots.len() as u64 > CONNECTIONS / 2,
            "{} of them",
            roots.len()
        );
        for root in &roots {
            root.assert_no_error();
            assert!(root.get("image.request.cancelled").is_some(), "{root:#?}");
        }
        server.recorder.assert_nothing_active();
    }
}

/// Leaves before the answer, or after some frames of it.
async fn open_and_drop(server: &Server, index: u64) {
    // Knuth's multiplicative hash: the same moments in every run, in no order.
    let moment = index.wrapping_mul(2_654_435_761) >> 16;
    let (connection, mut answer) = server.open("GET", "EndlessBody").await;
    if moment.is_multiple_of(8) {
        let patience = Duration::from_micros(moment % 2000);
        let _ = tokio::time::timeout(patience, &mut answer).await;
    } else if let Ok(response) = answer.await {
        let mut body = response.into_body();
        for _ in 0..moment % 7 {
            let _ = body.frame().await;
        }
    }
    connection.abort();
}

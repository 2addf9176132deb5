//! The queue for workers is bounded, and a client that leaves frees its worker.

use std::sync::Arc;

use axum::{Router, http::StatusCode, routing::get};
use tokio::sync::{Semaphore, mpsc};

use super::{Limits, OnDrop, Service, serve};

/// An origin that answers when it gets a permit. It reports when a request arrives and when it is over.
struct HeldOrigin {
    answers: Arc<Semaphore>,
    asked: mpsc::UnboundedReceiver<()>,
    over: mpsc::UnboundedReceiver<()>,
}

async fn service(limits: Limits) -> (Arc<Service>, HeldOrigin) {
    let answers = Arc::new(Semaphore::new(0));
    let (ask, asked) = mpsc::unbounded_channel();
    let (end, over) = mpsc::unbounded_channel();
    let permits = Arc::clone(&answers);
    let held = async move || {
        let _over = OnDrop(end.clone());
        let _ = ask.send(());
        permits.acquire().await.unwrap().forget();
        include_bytes!("../../examples/image_proxy/images/rocket.jpg").as_slice()
    };
    let origin = serve(Router::new().route("/held.jpg", get(held))).await;
    let service = Service::with(origin, limits).await;
    let origin = HeldOrigin {
        answers,
        asked,
        over,
    };
    (Arc::new(service), origin)
}

#[tokio::test]
async fn a_full_queue_turns_requests_away() {
    let (service, mut origin) = service(Limits {
        workers: 1,
        queue: 2,
        ..Limits::default()
    })
    .await;
    let (answer, mut answers) = mpsc::unbounded_channel();
    for _ in 0..7 {
        let (service, answer) = (Arc::clone(&service), answer.clone());
        tokio::spawn(async move { answer.send(service.resize("w:9", "/held.jpg").await) });
    }
    // One has the worker and two wait, so the other four are refused at once.
    for _ in 0..4 {
        let refused = answers.recv().await.unwrap();
        assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(refused.header("retry-after"), "1");
        assert_eq!(
            refused.text(),
            "all workers are busy and the queue is full: try again in a second\n"
        );
    }
    origin.asked.recv().await.unwrap();
    assert!(
        origin.asked.try_recv().is_err(),
        "one worker downloads one source"
    );
    origin.answers.add_permits(3);
    for _ in 0..3 {
        assert_eq!(answers.recv().await.unwrap().status, StatusCode::OK);
    }
    assert_eq!(service.idle_workers().await, 1);
}

#[tokio::test]
async fn a_client_that_leaves_frees_its_worker() {
    let (service, mut origin) = service(Limits {
        workers: 1,
        queue: 1,
        ..Limits::default()
    })
    .await;
    let leaving = Arc::clone(&service);
    let leaving = tokio::spawn(async move { leaving.resize("w:9", "/held.jpg").await });
    origin.asked.recv().await.unwrap();
    assert_eq!(service.idle_workers().await, 0);

    leaving.abort();
    origin.over.recv().await.unwrap();
    // This request gets the worker only if the one that left has freed it.
    origin.answers.add_permits(1);
    let answer = service.resize("w:9", "/held.jpg").await;
    assert_eq!(answer.status, StatusCode::OK);
}

//! A node that starts again with what it knew before.

use std::time::Duration;

use http::StatusCode;
use portolan::clock;
use portolan::view::row::Standing;

use crate::enroll::Ca;
use crate::node::{Node, Orch, params};

/// What stands in the file of a node's rows.
const KNOWN: &str = "orchestrators";

async fn node(orch: &Orch) -> Node {
    let joined = Ca::start().await.join("a").await;
    joined.setup("a", "data = \".\"").start(std::slice::from_ref(orch)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_remembers_serves_before_any_check_is_answered() {
    let orch = Orch::start(params()).await;
    let before = node(&orch).await;
    assert_eq!(before.call("x").await.status, StatusCode::OK);
    let folder = before.stop().await;
    // A check takes several answers, a call only one.
    orch.set("delay", "150ms").await;
    let begin = clock::now();
    let node = Node::again(folder).await;
    assert_eq!(node.call("y").await.text(), "y");
    let took = begin.elapsed();
    let view = node.app.gateway.shared.view.load();
    let checked = view.rows().next().unwrap().1.checked_at;
    assert!(checked.is_none_or(|at| at <= begin), "a check was answered first: no proof");
    assert!(took < Duration::from_secs(1), "{took:?}");
    node.until("what was remembered is checked", || {
        let view = node.app.gateway.shared.view.load();
        view.rows().next().unwrap().1.checked_at.is_some_and(|at| at > begin)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_remembered_of_one_that_is_gone_or_of_a_broken_file_does_no_harm() {
    let orch = Orch::start(params()).await;
    let folder = node(&orch).await.stop().await;
    let file = folder.path().join(KNOWN);
    let whole = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, &whole[..whole.len() / 2]).unwrap();
    let broken = Node::again(folder).await;
    broken.until_ready(1).await;
    let folder = broken.stop().await;
    // It is named no more.
    let path = folder.path().join("node.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.split_once("[[orchestrator]]").unwrap().0).unwrap();
    let without = Node::again(folder).await;
    without
        .until("it is let go", || {
            let view = without.app.gateway.shared.view.load();
            view.rows().all(|(_slot, row)| row.standing != Standing::Ready)
        })
        .await;
}

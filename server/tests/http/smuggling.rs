//! No part of a message is ever taken for another message.

use std::time::Duration;

use futures::future::join_all;
use pcmcache_server::connection::Floor;

use super::shapes::{HIDDEN, Shape, Verdict, shapes, shapes_of_http2, statuses_of_http2};
use super::wire::Served;

/// Connections end by themselves, so that all that was answered is known.
fn short(config: &mut pcmcache_server::Config) {
    config.limits.head = Duration::from_millis(1500);
    config.limits.idle = Duration::from_millis(500);
    config.limits.upload = Floor { window: Duration::from_millis(500), least: 1000 };
    config.limits.linger = Duration::from_millis(100);
}

/// The statuses of an answer's heads, but for `100 Continue`.
fn statuses(answer: &str) -> Vec<u16> {
    let heads = answer.split("HTTP/1.1 ").skip(1).chain(answer.split("HTTP/1.0 ").skip(1));
    heads.filter_map(|head| head.get(..3)?.parse().ok()).filter(|status| *status != 100).collect()
}

/// What is wrong with how a shape was answered.
fn fault(shape: &Shape, answer: &str) -> Option<String> {
    let statuses = statuses(answer);
    let as_expected = match (shape.verdict, statuses.as_slice()) {
        (Verdict::Refused, []) => true,
        (Verdict::Refused, [status]) => (400..500).contains(status),
        (Verdict::Read(expected), [status]) => *status == expected,
        (Verdict::Refused | Verdict::Read(_), _) => false,
    };
    (!as_expected || answer.contains(HIDDEN))
        .then(|| format!("{}: {:?}, but {statuses:?}", shape.name, shape.verdict))
}

#[tokio::test]
async fn every_shape_is_refused_or_read_in_the_one_right_way() {
    let served = Served::with(short).await;
    let shapes = shapes();
    assert!(shapes.len() >= 60, "{}", shapes.len());
    let answers = join_all(shapes.iter().map(|shape| served.raw(&shape.bytes, false))).await;
    let faults: Vec<_> =
        shapes.iter().zip(&answers).filter_map(|(shape, answer)| fault(shape, answer)).collect();
    assert!(faults.is_empty(), "{} of {}:\n{}", faults.len(), shapes.len(), faults.join("\n"));
}

#[tokio::test]
async fn no_field_of_http2_becomes_a_line() {
    let served = Served::with(short).await;
    let shapes = shapes_of_http2();
    let answers = join_all(shapes.iter().map(|shape| served.raw_bytes(&shape.bytes, false))).await;
    for (shape, answer) in shapes.iter().zip(&answers) {
        let statuses = statuses_of_http2(answer);
        match shape.verdict {
            Verdict::Read(status) => assert_eq!(statuses, [status], "{}", shape.name),
            Verdict::Refused => {
                assert!(statuses.len() <= 1 && !statuses.contains(&200), "{}: {statuses:?}", shape.name)
            }
        }
    }
}

//! The way to a member, measured over loopback.

use std::sync::Arc;
use std::time::Duration;

use blip2_collective::probe::{MOST_PROBED, measure};
use blip2_collective::{Exchange, Limits};
use blip2_proto::token::with_token;
use blip2_proto::transport::Transport;
use blip2_proto::v1::GiveRequest;
use blip2_proto::v1::diagnostics_client::DiagnosticsClient;
use tonic::Code;

const DEADLINE: Duration = Duration::from_secs(20);

#[tokio::test]
async fn the_way_to_a_member_is_measured_with_the_token_within_bounds_and_by_one_at_a_time() {
    let address = "127.0.0.1:0".parse().expect("an address");
    let bound = Exchange::bind(address, "secret".into(), Limits::default(), Transport::plain());
    let member = Arc::new(bound.await.expect("a free port"));
    let address = member.local_addr().to_string();
    let channel = async || Transport::plain().connect(&address, DEADLINE).await.expect("it listens");
    let way = measure(channel().await, "secret", 8 << 20).await.expect("measured");
    assert!(way.to > 0.0 && way.from > 0.0, "{way:?}");
    let code =
        async |token: &str, bytes| measure(channel().await, token, bytes).await.expect_err("refused").code();
    assert_eq!(code("another", 1 << 20).await, Code::Unauthenticated);
    assert_eq!(code("secret", MOST_PROBED + 1).await, Code::InvalidArgument);
    // Somebody else asks for bytes, and has not read them all.
    let mut other = DiagnosticsClient::new(channel().await);
    let request = with_token(GiveRequest { bytes: MOST_PROBED }, "secret");
    let mut held = other.give_bytes(request).await.expect("given").into_inner();
    held.message().await.expect("a chunk");
    assert_eq!(code("secret", 1 << 20).await, Code::Unavailable);
    drop(held);
    let freed = async {
        while measure(channel().await, "secret", 1 << 20).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, freed).await.expect("the place is free again");
    member.shutdown().await;
}

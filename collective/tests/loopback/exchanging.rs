//! Members of one process exchanging over loopback.

#![expect(clippy::disallowed_methods, reason = "a test's tasks end with its runtime")]

use std::sync::Arc;
use std::time::Duration;

use blip2_collective::journal::{Entry, Progress};
use blip2_collective::{
    CollectiveError, Exchange, Limits, Member, Received, Sent, SumTree, TreeAccumulator, TreePartial, Wire,
    World, deal_slots,
};
use blip2_proto::token::with_token;
use blip2_proto::transport::Transport;
use blip2_proto::v1::bulk_client::BulkClient;
use blip2_proto::v1::{Chunk, FetchStateRequest, PushHeader};
use bytes::Bytes;
use tonic::Code;

const SLOTS: u32 = 8;
/// Turns of all tasks within which an abort is noticed.
const TURNS: usize = 100;
const DEADLINE: Duration = Duration::from_secs(20);

async fn exchanges(count: usize, limits: &Limits) -> Vec<Arc<Exchange>> {
    let mut all = Vec::new();
    for _ in 0..count {
        let address = "127.0.0.1:0".parse().expect("an address");
        all.push(Arc::new(
            Exchange::bind(address, "secret".into(), limits.clone(), Transport::plain())
                .await
                .expect("a free port"),
        ));
    }
    all
}

fn enter(exchanges: &[Arc<Exchange>], epoch: u64) {
    let deal = deal_slots(SLOTS, exchanges.len()).expect("valid deal");
    let members: Vec<Member> = exchanges
        .iter()
        .zip(deal)
        .enumerate()
        .map(|(rank, (exchange, slots))| Member {
            id: 10 + rank as u32,
            address: exchange.local_addr().to_string(),
            slots,
        })
        .collect();
    for (rank, exchange) in exchanges.iter().enumerate() {
        exchange.set_world(World { epoch, rank, members: members.clone() });
    }
}

fn slot_values(slot: u32, elements: usize) -> Vec<f32> {
    let value = |i: usize| {
        let hash = (i as u64 ^ (u64::from(slot) << 40)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        ((hash >> 40) as f32 - 8_388_608.0) * 10f32.powi((hash % 9) as i32 - 4)
    };
    (0..elements).map(value).collect()
}

fn partials(tree: &SumTree, slots: std::ops::Range<u32>, elements: usize) -> Vec<TreePartial> {
    let mut sums = TreeAccumulator::new(tree, slots.clone());
    slots.for_each(|slot| sums.push(slot_values(slot, elements)).expect("in range"));
    sums.finish().expect("complete")
}

async fn reduced(members: usize, elements: usize, wire: Wire, chunk_bytes: usize) -> Vec<Vec<f32>> {
    let tree = SumTree::new(SLOTS).expect("power of two").on_wire(wire);
    let all = exchanges(members, &Limits { chunk_bytes, ..Limits::default() }).await;
    enter(&all, 1);
    let deal = deal_slots(SLOTS, members).expect("valid deal");
    let calls = all.iter().zip(deal).map(|(exchange, slots)| async move {
        exchange
            .tree_all_reduce(3, "grad", partials(&tree, slots, elements), &tree, DEADLINE)
            .await
            .expect("all answer")
    });
    let sums = futures::future::join_all(calls).await;
    for exchange in all {
        exchange.shutdown().await;
    }
    sums
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sums_are_bit_identical_for_every_number_of_members() {
    for wire in [Wire::F32, Wire::Bf16] {
        for elements in [0, 3, 100_003] {
            let expected = naive(wire, elements);
            for members in [1, 2, 3, 4, 8] {
                for sum in reduced(members, elements, wire, 4096 + 2).await {
                    assert_eq!(sum.len(), elements);
                    let same = sum.iter().zip(&expected).all(|(a, b)| a.to_bits() == b.to_bits());
                    assert!(same, "{members} members, {wire}");
                }
            }
        }
    }
}

/// The sum as its definition says: a tree of additions in f32, each node rounded to what travels.
fn naive(wire: Wire, elements: usize) -> Vec<f32> {
    fn node(wire: Wire, element: usize, slots: std::ops::Range<u32>, values: &[Vec<f32>]) -> f32 {
        let sum = if slots.len() == 1 {
            values[slots.start as usize][element]
        } else {
            let middle = slots.start + slots.len() as u32 / 2;
            node(wire, element, slots.start..middle, values) + node(wire, element, middle..slots.end, values)
        };
        match wire {
            Wire::F32 => sum,
            Wire::Bf16 => half::bf16::from_f32(sum).to_f32(),
        }
    }
    let values: Vec<Vec<f32>> = (0..SLOTS).map(|slot| slot_values(slot, elements)).collect();
    (0..elements).map(|element| node(wire, element, 0..SLOTS, &values)).collect()
}

/// What a member pushes to another: pieces of awkward lengths.
fn due(from: usize, to: usize) -> Vec<Bytes> {
    let piece = |place: usize| Bytes::from(vec![(16 * from + to) as u8; place * 4099 * (from + 1)]);
    match (from, to) {
        // The second owes the first nothing, and nobody owes itself anything.
        (1, 0) => Vec::new(),
        _ if from == to => Vec::new(),
        _ => vec![piece(0), piece(1), piece(2)],
    }
}

fn bytes_due(from: usize, to: usize) -> u64 {
    due(from, to).iter().map(|piece| piece.len() as u64).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn buffers_are_gathered_and_pushed_to_whom_they_are_due() {
    let all = exchanges(3, &Limits { chunk_bytes: 4096, ..Limits::default() }).await;
    enter(&all, 1);
    let calls = all.iter().enumerate().map(|(rank, exchange)| async move {
        let own = Bytes::from(vec![rank as u8; rank * 5000 + usize::from(rank == 1)]);
        let gathered = exchange.all_gather(0, "feats", own, DEADLINE).await.expect("all answer");
        if rank == 2 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let before = exchange.sent();
        let outgoing: Vec<Vec<Bytes>> = (0..3).map(|to| due(rank, to)).collect();
        let expected: Vec<u64> = (0..3).map(|from| bytes_due(from, rank)).collect();
        let rows = exchange.all_to_all(0, "rows", &outgoing, &expected, DEADLINE).await.expect("all answer");
        let Sent { buffers, bytes } = exchange.sent();
        (gathered, rows, (buffers - before.buffers, bytes - before.bytes))
    });
    for (rank, (gathered, rows, sent)) in futures::future::join_all(calls).await.into_iter().enumerate() {
        let lengths: Vec<usize> = gathered.iter().map(Received::len).collect();
        assert_eq!(lengths, [0, 5001, 10_000]);
        assert!(gathered[2].clone().into_bytes().iter().all(|byte| *byte == 2));
        for (from, received) in rows.into_iter().enumerate() {
            assert_eq!(received.into_bytes(), due(from, rank).concat(), "from {from} to {rank}");
        }
        // One buffer to each who is due one: nothing is asked for, and nothing answered.
        let pushed = (0..3).filter(|to| bytes_due(rank, *to) > 0).count() as u64;
        assert_eq!(sent, (pushed, (0..3).map(|to| bytes_due(rank, to)).sum()), "member {rank}");
    }
}

#[tokio::test]
async fn a_buffer_of_another_length_than_is_due_is_its_senders_fault() {
    let all = exchanges(2, &Limits::default()).await;
    enter(&all, 1);
    let (nine, nothing) = (vec![Bytes::from_static(b"nine byte")], Vec::new());
    let (wrong, none) = ([nothing.clone(), nine.clone()], [nothing.clone(), nothing.clone()]);
    let (first, second) = tokio::join!(
        all[0].all_to_all(0, "rows", &wrong, &[0, 0], DEADLINE),
        all[1].all_to_all(0, "rows", &none, &[8, 0], DEADLINE),
    );
    assert!(first.expect("it is taken in").iter().all(Received::is_empty));
    let error = second.expect_err("8 bytes were due");
    assert_eq!(error.suspects(), [10], "{error}");
    assert!(error.to_string().contains("9 bytes for rows of step 0 where 8 were due"), "{error}");
    // A call that cannot be is refused before anything is sent.
    let before = all[0].sent();
    for (outgoing, due) in [
        (vec![nine.clone(), nothing.clone()], vec![0, 0]),
        (vec![nothing.clone(), nothing.clone()], vec![4, 0]),
        (vec![nothing.clone()], vec![0, 0]),
        (vec![nothing.clone(), nothing.clone()], vec![0]),
    ] {
        let refused = all[0].all_to_all(1, "rows", &outgoing, &due, DEADLINE).await;
        assert!(matches!(refused, Err(CollectiveError::Invalid(_))), "{refused:?}");
    }
    assert_eq!(all[0].sent(), before);
}

#[tokio::test]
async fn who_owes_a_buffer_and_is_silent_is_named_and_nobody_else_is_waited_for() {
    let all = exchanges(3, &Limits::default()).await;
    enter(&all, 1);
    let nothing = vec![Vec::new(); 3];
    let owed = |due: [u64; 3]| {
        let (exchange, nothing) = (all[0].clone(), nothing.clone());
        async move { exchange.all_to_all(0, "rows", &nothing, &due, Duration::from_millis(300)).await }
    };
    let error = owed([0, 0, 5]).await.expect_err("member 12 is silent");
    assert_eq!(error.suspects(), [12], "{error}");
    assert!(owed([0, 0, 0]).await.expect("nobody is waited for").iter().all(Received::is_empty));
}

#[tokio::test]
async fn a_silent_member_is_named_when_the_deadline_passes() {
    let all = exchanges(3, &Limits::default()).await;
    enter(&all, 1);
    let deadline = Duration::from_millis(300);
    let calls = [0, 2].map(|rank| all[rank].all_gather(0, "feats", Bytes::from_static(b"1234"), deadline));
    for result in futures::future::join_all(calls).await {
        let error = result.expect_err("member 11 is silent");
        assert_eq!(error.suspects(), [11], "{error}");
    }
    for rank in [0, 2] {
        let remembered = all[rank].collectives_of(0);
        let [Entry { tag, bytes: 4, progress: Progress::Failed(_, error), .. }] = &remembered[..] else {
            panic!("{remembered:?}");
        };
        assert_eq!((tag.as_str(), error.suspects()), ("feats", vec![11]));
    }
}

#[tokio::test]
async fn an_unreachable_member_is_lost_and_not_waited_for_until_the_deadline() {
    let mut all =
        exchanges(2, &Limits { connect_timeout: Duration::from_millis(300), ..Limits::default() }).await;
    enter(&all, 1);
    all.remove(1).shutdown().await;
    let error = all[0].all_gather(0, "feats", Bytes::new(), DEADLINE).await.expect_err("nobody there");
    assert!(matches!(error, CollectiveError::PeerLost { member: 11, .. }), "{error}");
}

#[tokio::test]
async fn an_abort_wakes_all_waiters_at_once() {
    let all = exchanges(2, &Limits::default()).await;
    enter(&all, 1);
    let tree = SumTree::new(SLOTS).expect("power of two");
    let waiting = [
        tokio::spawn({
            let exchange = all[0].clone();
            async move { exchange.all_gather(0, "feats", Bytes::new(), DEADLINE).await.map(|_| ()) }
        }),
        tokio::spawn({
            let exchange = all[0].clone();
            async move {
                exchange
                    .tree_all_reduce(0, "grad", partials(&tree, 0..4, 9), &tree, DEADLINE)
                    .await
                    .map(|_| ())
            }
        }),
        tokio::spawn({
            let exchange = all[0].clone();
            async move { exchange.all_to_all(0, "rows", &[vec![], vec![]], &[0, 5], DEADLINE).await.map(|_| ()) }
        }),
    ];
    tokio::time::sleep(Duration::from_millis(100)).await;
    all[0].abort(1, "member 11 left");
    // One thread runs all tasks: a few turns of each, and no timer, are what the waiters need to end.
    for _ in 0..TURNS {
        tokio::task::yield_now().await;
    }
    assert!(waiting.iter().all(|waiter| waiter.is_finished()), "still waiting after {TURNS} turns");
    for waiter in waiting {
        let error = waiter.await.expect("no panic").expect_err("aborted");
        assert!(
            matches!(&error, CollectiveError::Aborted { epoch: 1, reason } if reason.contains("left")),
            "{error}"
        );
    }
    let after = all[0].all_gather(0, "feats", Bytes::new(), DEADLINE).await;
    assert!(matches!(after, Err(CollectiveError::Aborted { .. })));
}

#[tokio::test]
async fn mail_of_the_next_epoch_waits_for_the_slower_member() {
    let all = exchanges(2, &Limits::default()).await;
    enter(&all, 1);
    all[0].abort(1, "redo");
    let members: Vec<Member> = (0..2)
        .map(|rank| Member {
            id: 10 + rank,
            address: all[rank as usize].local_addr().to_string(),
            slots: rank * 4..rank * 4 + 4,
        })
        .collect();
    all[0].set_world(World { epoch: 2, rank: 0, members: members.clone() });
    let fast = tokio::spawn({
        let exchange = all[0].clone();
        async move { exchange.all_gather(5, "feats", Bytes::from_static(b"fast"), DEADLINE).await }
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    all[1].set_world(World { epoch: 2, rank: 1, members });
    let slow =
        all[1].all_gather(5, "feats", Bytes::from_static(b"slow"), DEADLINE).await.expect("both answer");
    let whole = |all: Vec<Received>| all.into_iter().map(Received::into_bytes).collect::<Vec<Bytes>>();
    assert_eq!(whole(slow), [&b"fast"[..], b"slow"]);
    assert_eq!(whole(fast.await.expect("no panic").expect("both answer")), [&b"fast"[..], b"slow"]);
}

#[tokio::test]
async fn wrong_tokens_and_oversized_or_malformed_pushes_are_refused_and_stop_nobody() {
    let limits = Limits { max_buffer_bytes: 64, chunk_bytes: 4096, ..Limits::default() };
    let all = exchanges(2, &limits).await;
    enter(&all, 1);
    let url = format!("http://{}", all[0].local_addr());
    let mut client = BulkClient::connect(url).await.expect("it listens");
    let header = PushHeader {
        token: "secret".into(),
        epoch: 1,
        step: 0,
        tag: "feats".into(),
        from_member: 11,
        length: 8,
    };
    let chunk =
        |header: Option<PushHeader>, bytes: usize| Chunk { header, data: Bytes::from(vec![1; bytes]) };
    let cases = [
        (vec![], Code::InvalidArgument),
        (vec![chunk(None, 8)], Code::InvalidArgument),
        (
            vec![chunk(Some(PushHeader { token: "guess!".into(), ..header.clone() }), 8)],
            Code::Unauthenticated,
        ),
        (vec![chunk(Some(PushHeader { length: 65, ..header.clone() }), 65)], Code::ResourceExhausted),
        (vec![chunk(Some(header.clone()), 9)], Code::InvalidArgument),
        (vec![chunk(Some(header.clone()), 7)], Code::InvalidArgument),
        (vec![chunk(Some(header.clone()), 3), chunk(Some(header.clone()), 5)], Code::InvalidArgument),
        (vec![chunk(Some(header.clone()), 1 << 20)], Code::OutOfRange),
        (vec![chunk(Some(PushHeader { from_member: 99, ..header.clone() }), 8)], Code::PermissionDenied),
        (vec![chunk(Some(PushHeader { epoch: 0, ..header.clone() }), 8)], Code::FailedPrecondition),
        (vec![chunk(Some(PushHeader { tag: "x".repeat(300), ..header.clone() }), 8)], Code::InvalidArgument),
    ];
    for (chunks, code) in cases {
        let status = client.push(futures::stream::iter(chunks)).await.expect_err("refused");
        assert_eq!(status.code(), code, "{status}");
    }
    let request = FetchStateRequest { token: "guess!".into(), ..FetchStateRequest::default() };
    assert_eq!(client.fetch_state(request).await.expect_err("refused").code(), Code::Unauthenticated);
    let calls =
        all.iter().map(|exchange| exchange.all_gather(0, "feats", Bytes::from_static(b"ok"), DEADLINE));
    for gathered in futures::future::join_all(calls).await {
        assert_eq!(gathered.expect("both answer").len(), 2);
    }
}

#[tokio::test]
async fn a_joiner_takes_the_state_of_the_step_it_asks_for() {
    let all = exchanges(2, &Limits { chunk_bytes: 4096, max_state_bytes: 20_000, ..Limits::default() }).await;
    let address = all[0].local_addr().to_string();
    let state = Arc::new(vec![Bytes::from(vec![1; 10_000]), Bytes::new(), Bytes::from(vec![2; 5])]);
    let fetch = |step| all[1].fetch_state(&address, step, Duration::from_millis(500));
    let publish = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        all[0].publish_state(4, state);
    };
    let (fetched, ()) = tokio::join!(fetch(4), publish);
    let fetched = fetched.expect("published in time");
    assert_eq!((fetched.len(), fetched[9_999], fetched[10_004]), (10_005, 1, 2));
    assert!(matches!(fetch(3).await, Err(CollectiveError::State { step: 3, .. })));
    all[0].publish_state(5, Arc::new(vec![Bytes::from(vec![0; 20_001])]));
    let error = fetch(5).await.expect_err("over the limit");
    assert!(error.to_string().contains("20000"), "{error}");
    all[0].clear_state();
    assert!(fetch(5).await.expect_err("nothing published").to_string().contains("0.5 s"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_state_comes_whole_over_several_connections() {
    let limits = Limits { chunk_bytes: 4096, state_streams: 3, ..Limits::default() };
    let all = exchanges(2, &limits).await;
    let address = all[0].local_addr().to_string();
    // Pieces of awkward lengths, more than the first chunk and not divisible by the number of streams.
    let pieces: Vec<Bytes> = (0..7u32)
        .map(|piece| {
            (0..piece * 9001).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8 ^ piece as u8).collect()
        })
        .collect();
    let whole: Vec<u8> = pieces.concat();
    all[0].publish_state(9, Arc::new(pieces));
    let fetched = all[1].fetch_state(&address, 9, DEADLINE).await.expect("published");
    assert_eq!(fetched, whole);
    all[0].publish_state(10, Arc::new(Vec::new()));
    assert_eq!(all[1].fetch_state(&address, 10, DEADLINE).await.expect("published"), Bytes::new());
}

/// Listens, passes `connections` connections on to `to`, and cuts each after 300 kB of answers.
async fn cutting_relay(to: std::net::SocketAddr, connections: usize) -> String {
    use tokio::io::{AsyncReadExt, copy};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound").to_string();
    tokio::spawn(async move {
        for _ in 0..connections {
            let (near, _) = listener.accept().await.expect("a connection");
            tokio::spawn(async move {
                let far = tokio::net::TcpStream::connect(to).await.expect("it listens");
                let ((mut asks, mut hears), (answers, mut asked)) = (near.into_split(), far.into_split());
                let mut answers = answers.take(300_000);
                tokio::select! {
                    _ = copy(&mut answers, &mut hears) => (),
                    _ = copy(&mut asks, &mut asked) => (),
                }
            });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_goes_on_where_its_connection_broke_and_ends_where_its_peer_does() {
    let limits = Limits {
        chunk_bytes: 4096,
        state_streams: 2,
        connect_timeout: Duration::from_millis(800),
        ..Limits::default()
    };
    let all = exchanges(2, &limits).await;
    let state: Bytes = (0..1_000_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    all[0].publish_state(1, Arc::new(vec![state.clone()]));
    let relay = cutting_relay(all[0].local_addr(), 100).await;
    let fetched = all[1].fetch_state(&relay, 1, DEADLINE).await.expect("in several goes");
    assert!(fetched == state);
    let relay = cutting_relay(all[0].local_addr(), 2).await;
    match all[1].fetch_state(&relay, 1, DEADLINE).await {
        Err(CollectiveError::State { step: 1, reason, .. }) => {
            assert!(reason.contains("refused"), "{reason}")
        }
        other => panic!("{:?}", other.map(|state| state.len())),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn noise_on_the_port_and_a_crowd_of_streams_stop_nobody() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let limits = Limits { chunk_bytes: 4096, idle_timeout: Duration::from_millis(200), ..Limits::default() };
    let all = exchanges(2, &limits).await;
    enter(&all, 1);
    let address = all[0].local_addr();
    // Bytes that are no HTTP/2, and HTTP/2 that goes wrong after its preface.
    for preface in [&b""[..], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        let mut noise = tokio::net::TcpStream::connect(address).await.expect("it listens");
        let bytes: Vec<u8> = (0..100_000u32).map(|i| (i.wrapping_mul(0x9E37_79B9) >> 13) as u8).collect();
        // The server may close before all is written.
        let _ = noise.write_all(&[preface, &bytes].concat()).await;
        let closed = tokio::time::timeout(DEADLINE, async {
            while noise.read(&mut [0; 1024]).await.is_ok_and(|n| n > 0) {}
        });
        closed.await.expect("the server closes the connection");
    }
    // A thousand pushes that announce a buffer and then say nothing.
    let client = BulkClient::connect(format!("http://{address}")).await.expect("it listens");
    let silent = (0..1000).map(|place| {
        let mut client = client.clone();
        let header = PushHeader {
            token: "secret".into(),
            epoch: 1,
            step: 0,
            tag: format!("crowd {place}"),
            from_member: 11,
            length: 64,
        };
        let chunk = Chunk { header: Some(header), data: Bytes::from_static(b"1234") };
        let endless = futures::StreamExt::chain(futures::stream::iter([chunk]), futures::stream::pending());
        // Shown with each call, as members do: who is first to be read would otherwise decide who is heard.
        async move { client.push(with_token(endless, "secret")).await }
    });
    let crowd = tokio::spawn(futures::future::join_all(silent));
    let calls =
        all.iter().map(|exchange| exchange.all_gather(0, "feats", Bytes::from_static(b"ok"), DEADLINE));
    for gathered in futures::future::join_all(calls).await {
        assert_eq!(gathered.expect("both answer").len(), 2);
    }
    for answer in crowd.await.expect("no panic") {
        assert_eq!(answer.expect_err("silent").code(), Code::DeadlineExceeded);
    }
}

#[tokio::test]
async fn steps_follow_each_other_without_a_pause() {
    let all = exchanges(2, &Limits { chunk_bytes: 4096, ..Limits::default() }).await;
    enter(&all, 1);
    let tree = SumTree::new(SLOTS).expect("power of two");
    let deal = deal_slots(SLOTS, 2).expect("valid deal");
    let members = all.iter().zip(deal).map(|(exchange, slots)| async move {
        for step in 0..200 {
            let parts = partials(&tree, slots.clone(), 5000);
            exchange.tree_all_reduce(step, "grad", parts, &tree, DEADLINE).await.expect("all answer");
        }
    });
    futures::future::join_all(members).await;
}

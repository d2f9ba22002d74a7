//! Coordinators that stand by.

use std::time::Duration;

use blip2_coordinator::{CoordinatorError, Outcome, RunSpec, StandByEnd, StandByOptions, stand_by};
use blip2_proto::transport::Transport;
use blip2_proto::v1::coordinator_client::CoordinatorClient;
use blip2_proto::v1::coordinator_message::Kind as ToWorker;
use blip2_proto::v1::{Hello, RefusalCode, StatusReply, StatusRequest, StopKind, StopRequest};
use blip2_run::RunError;
use blip2_run::catalogue::Catalogue;
use blip2_run::epoch::Epochs;
use blip2_store::Location;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tonic::Code;

use crate::model::{Habit, folder, hello, settings, spec, stages, start, start_on, stop_kind, work, work_on};

/// Steps of the second stage of a run that is long enough to be taken over.
const MANY: u64 = 60;

struct StandBy {
    address: String,
    listener: std::net::TcpListener,
    end: JoinHandle<blip2_coordinator::Result<StandByEnd>>,
}

fn options(root: &Location, address: &str) -> StandByOptions {
    StandByOptions {
        run_id: "run".into(),
        run_root: root.clone(),
        settings: settings(2),
        advertise: address.to_owned(),
        transport: Transport::plain(),
        token: "secret".into(),
        status: watch::Sender::new(StatusReply::default()),
    }
}

fn begin(root: &Location) -> StandBy {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = format!("http://{}", listener.local_addr().expect("bound"));
    let options = options(root, &address);
    let shared = listener.try_clone().expect("a socket can be shared");
    let end = tokio::spawn(async move { stand_by(&shared, std::future::pending(), options).await });
    StandBy { address, listener, end }
}

impl StandBy {
    fn into_listener(self) -> TcpListener {
        self.listener.set_nonblocking(true).expect("a socket");
        TcpListener::from_std(self.listener).expect("a socket")
    }
}

fn long(root: &Location) -> RunSpec {
    RunSpec { schedule: stages([4, MANY]), ..spec(root) }
}

/// How many members each epoch after `after` has.
async fn members_by_epoch(root: &Location, after: u64) -> Vec<usize> {
    let epochs = Epochs::new(root, String::new(), String::new());
    let mut members = Vec::new();
    for epoch in epochs.numbers().await.expect("readable") {
        if epoch > after {
            members.push(epochs.read(epoch).await.expect("readable").expect("there").members.len());
        }
    }
    members
}

async fn a_replacement_goes_on(root: Location) {
    let mut first = start(long(&root), 2).await;
    let mut standby = begin(&root);
    let addresses = vec![first.address.clone(), standby.address.clone()];
    let slow = Habit::Slow(Duration::from_millis(25));
    let workers: Vec<_> = ["a", "b"]
        .map(|name| tokio::spawn(work_on(addresses.clone(), root.clone(), hello(name), slow)))
        .into_iter()
        .collect();
    let mut steps = Vec::new();
    while steps.len() < 8 {
        match first.commits.recv().await {
            Some(step) => steps.push(step.step),
            None => panic!("the leader ended: {:?}", first.coordinator.await),
        }
    }
    first.coordinator.abort();
    let end = (&mut standby.end).await.expect("no panic").expect("it stands by");
    let StandByEnd::Lead { after } = end else { panic!("{end:?}") };
    while let Some(step) = first.commits.recv().await {
        steps.push(step.step);
    }
    let (resume, _) = Catalogue::new(&root).latest_verified().await.expect("readable");
    assert!(resume.as_ref().is_some_and(|record| record.step < steps.len() as u64), "{resume:?}");
    let spec = RunSpec { resume, ..long(&root) };
    let mut second = start_on(standby.into_listener(), spec, 2, Some(after));
    match second.commits.recv().await {
        Some(step) => steps.push(step.step),
        None => panic!("the replacement ended: {:?}", second.coordinator.await),
    }
    for worker in workers {
        assert_eq!(stop_kind(worker.await.expect("no panic")), Some(StopKind::StopDone));
    }
    assert!(matches!(second.coordinator.await.expect("no panic"), Ok(Outcome::Done { .. })));
    while let Some(step) = second.commits.recv().await {
        steps.push(step.step);
    }
    assert_eq!(steps, (0..4 + MANY).collect::<Vec<_>>(), "every step is reported once");
    // The replacement begins, takes both workers in at once, and ends the run: nobody was waited for or lost
    // meanwhile.
    assert_eq!(members_by_epoch(&root, after).await, [0, 2, 0]);
    let (last, damaged) = Catalogue::new(&root).latest_verified().await.expect("readable");
    let last = last.expect("one");
    assert_eq!((last.step, damaged.len()), (4 + MANY, 0));
    let digest: u128 = (4..4 + u128::from(MANY)).map(|step| 64 * (step + 1)).sum();
    assert_eq!((last.coverage.of(2).samples, last.coverage.of(2).digest), (64 * MANY, digest));
    let rows = Catalogue::new(&root).read_quarantine(&last).await.expect("readable");
    assert_eq!(rows.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replacement_goes_on_with_what_the_workers_hold_on_a_disk() {
    let (_folder, root) = folder();
    a_replacement_goes_on(root).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replacement_goes_on_with_what_the_workers_hold_in_an_object_store() {
    a_replacement_goes_on(Location::parse("memory:///runs/run").expect("a URL")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_stands_by_sends_workers_to_the_leader_and_ends_with_the_run() {
    let (_folder, root) = folder();
    let mut standby = begin(&root);
    let run = start(spec(&root), 1).await;
    let mut client = CoordinatorClient::connect(standby.address.clone()).await.expect("it listens");
    let mut leader = String::new();
    while leader != run.address {
        let refused = work(standby.address.clone(), root.clone(), hello("w"), Habit::None).await;
        let Some(ToWorker::Refused(refused)) = refused else { panic!("{refused:?}") };
        assert_eq!(refused.code(), RefusalCode::RefusalStandby);
        leader = refused.leader;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let stranger = Hello { token: "guess!".into(), ..hello("stranger") };
    let refused = work(standby.address.clone(), root.clone(), stranger, Habit::None).await;
    let Some(ToWorker::Refused(refused)) = refused else { panic!("{refused:?}") };
    assert!(refused.code() == RefusalCode::RefusalToken && refused.leader.is_empty(), "{refused:?}");
    let status = client
        .status(StatusRequest { token: "secret".into(), ..StatusRequest::default() })
        .await
        .expect("an answer")
        .into_inner();
    assert_eq!((status.state.as_str(), status.run_id.as_str(), status.epoch), ("standby", "run", 1));
    // Longer than a leader may be silent: this one is not.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert!(!standby.end.is_finished());
    let worker = work(run.address.clone(), root.clone(), hello("w"), Habit::None).await;
    assert_eq!(stop_kind(worker), Some(StopKind::StopDone));
    let end = (&mut standby.end).await.expect("no panic").expect("it stood by");
    assert_eq!(end, StandByEnd::Over { how: "done".into() });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_no_worker_reaches_gives_way_to_the_one_they_come_to() {
    let (_folder, root) = folder();
    let leader = start(spec(&root), 1).await;
    let mut standby = begin(&root);
    let knock = |hello: Hello| work(standby.address.clone(), root.clone(), hello, Habit::None);
    // A worker of no run yet may come first to whoever it likes.
    for _ in 0..20 {
        knock(hello("new")).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(!standby.end.is_finished());
    while !standby.end.is_finished() {
        knock(Hello { run_id: "run".into(), ..hello("member") }).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let end = (&mut standby.end).await.expect("no panic").expect("it stood by");
    assert_eq!(end, StandByEnd::Lead { after: 1 });
    let second = start_on(standby.into_listener(), spec(&root), 1, Some(1));
    let worker = work(second.address.clone(), root.clone(), hello("w"), Habit::None).await;
    assert_eq!(stop_kind(worker), Some(StopKind::StopDone));
    let first = leader.coordinator.await.expect("no panic");
    assert!(matches!(first, Ok(Outcome::Failed { exit_code: 4, .. })), "{first:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_that_stand_by_one_leads() {
    let (_folder, root) = folder();
    let gone = Epochs::new(&root, "gone".into(), "http://127.0.0.1:1".into());
    gone.begin(0).await.expect("free");
    let mut both = [begin(&root), begin(&root)];
    for standby in &mut both {
        let end = (&mut standby.end).await.expect("no panic").expect("it stands by");
        assert_eq!(end, StandByEnd::Lead { after: 1 });
    }
    let [first, second] = both.map(StandBy::into_listener);
    let leads = start_on(first, spec(&root), 1, Some(1));
    let worker = work(leads.address.clone(), root.clone(), hello("w"), Habit::None).await;
    assert_eq!(stop_kind(worker), Some(StopKind::StopDone));
    let late = start_on(second, spec(&root), 1, Some(1)).coordinator.await.expect("no panic");
    assert!(matches!(late, Err(CoordinatorError::Run(RunError::Fenced { epoch: 2 }))), "{late:?}");
    assert!(matches!(leads.coordinator.await.expect("no panic"), Ok(Outcome::Done { .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_asked_to_go_hands_over_to_the_one_that_stands_by() {
    let (_folder, root) = folder();
    let mut first = start(long(&root), 2).await;
    let mut standby = begin(&root);
    let addresses = vec![first.address.clone(), standby.address.clone()];
    // Far from its end when the signal comes, on a machine that is busy too.
    let slow = Habit::Slow(Duration::from_millis(200));
    let workers =
        ["a", "b"].map(|name| tokio::spawn(work_on(addresses.clone(), root.clone(), hello(name), slow)));
    let mut steps = Vec::new();
    let mut client = CoordinatorClient::connect(standby.address.clone()).await.expect("it listens");
    let request = || StatusRequest { token: "secret".into(), ..StatusRequest::default() };
    // Once it shows an epoch it asks its leader, twice a second.
    while client.status(request()).await.expect("an answer").into_inner().epoch == 0 {
        steps.push(first.commits.recv().await.expect("it leads").step);
    }
    tokio::time::sleep(Duration::from_millis(1200)).await;
    first.stop.send(()).expect("it runs");
    let end = (&mut standby.end).await.expect("no panic").expect("it stands by");
    let StandByEnd::Lead { after } = end else { panic!("{end:?}") };
    // Until somebody else leads, steps are committed.
    assert!(!first.coordinator.is_finished());
    let (resume, _) = Catalogue::new(&root).latest_verified().await.expect("readable");
    let second = RunSpec { resume, ..long(&root) };
    let mut second = start_on(standby.into_listener(), second, 2, Some(after));
    assert_eq!(first.coordinator.await.expect("no panic").expect("it ran"), Outcome::HandedOver);
    while let Some(step) = first.commits.recv().await {
        steps.push(step.step);
    }
    for worker in workers {
        assert_eq!(stop_kind(worker.await.expect("no panic")), Some(StopKind::StopDone));
    }
    assert!(matches!(second.coordinator.await.expect("no panic"), Ok(Outcome::Done { .. })));
    while let Some(step) = second.commits.recv().await {
        steps.push(step.step);
    }
    assert_eq!(steps, (0..4 + MANY).collect::<Vec<_>>(), "every step is reported once");
    assert_eq!(members_by_epoch(&root, after).await, [0, 2, 0], "nobody was lost or waited for");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_is_stopped_by_whoever_has_its_token_and_names_it() {
    let (_folder, root) = folder();
    let mut run = start(long(&root), 1).await;
    let standby = begin(&root);
    // Far from its end when the one that stands by has heard of its leader.
    let slow = Habit::Slow(Duration::from_millis(500));
    let worker = tokio::spawn(work(run.address.clone(), root.clone(), hello("a"), slow));
    let stop = async |address: &str, token: &str, run_id: &str| {
        let mut client = CoordinatorClient::connect(address.to_owned()).await.expect("it listens");
        let request = StopRequest { token: token.into(), run_id: run_id.into() };
        client.stop(request).await.map(|reply| reply.into_inner().leader).map_err(|status| status.code())
    };
    run.commits.recv().await.expect("a first step");
    for address in [&run.address, &standby.address] {
        assert_eq!(stop(address, "another secret", "run").await, Err(Code::Unauthenticated));
        assert_eq!(stop(address, "secret", "another run").await, Err(Code::FailedPrecondition));
    }
    let mut leader = stop(&standby.address, "secret", "run").await;
    while leader == Err(Code::Unavailable) {
        assert!(!run.coordinator.is_finished(), "it goes on meanwhile");
        tokio::time::sleep(Duration::from_millis(50)).await;
        leader = stop(&standby.address, "secret", "run").await;
    }
    assert_eq!(leader.as_ref(), Ok(&run.address), "it says who leads");
    assert!(!run.coordinator.is_finished() && run.commits.recv().await.is_some());
    // It stops though another could take over.
    assert_eq!(stop(&run.address, "secret", "run").await, Ok(String::new()));
    assert_eq!(stop_kind(worker.await.expect("no panic")), Some(StopKind::StopInterrupted));
    let outcome = run.coordinator.await.expect("no panic").expect("it ran");
    assert!(matches!(outcome, Outcome::Interrupted { checkpoint: Some(_) }), "{outcome:?}");
    assert_eq!(
        standby.end.await.expect("no panic").expect("ended"),
        StandByEnd::Over { how: "interrupted".into() }
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_is_asked_to_go_knows_whether_the_run_is_over() {
    let (_folder, root) = folder();
    let leave = async || {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        stand_by(&listener, std::future::ready(()), options(&root, "http://127.0.0.1:2"))
            .await
            .expect("it stands by")
    };
    assert_eq!(leave().await, StandByEnd::Stopped, "nobody leads yet");
    let leader = Epochs::new(&root, "leader".into(), "http://127.0.0.1:1".into());
    leader.begin(0).await.expect("free");
    assert_eq!(leave().await, StandByEnd::Stopped);
    leader.end(2, 9, "done").await.expect("free");
    assert_eq!(leave().await, StandByEnd::Over { how: "done".into() });
}

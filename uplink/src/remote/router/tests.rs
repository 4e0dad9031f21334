//! A router between a gateway and brokers that are played by hand, over pipes without sockets.

use std::future::pending;

use chappe_protocol::{ChannelId, Incarnation, PartitionId};

use super::*;
use crate::{Attach, Generation, Leading, Refusal};

const PATIENCE: Patience =
    Patience { heartbeat: Duration::from_secs(1), silence: Duration::from_secs(3) };

fn address(node: Node) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 7_402 + node as u16))
}

fn generation() -> Generation {
    Generation { incarnation: Incarnation(1), epoch: 5 }
}

fn leading() -> Response {
    Response::Leading(Leading { partitions: 1, leads: vec![(PartitionId(0), generation())] })
}

fn attach(token: u64) -> Request {
    Request::Attach(Attach { token, channel: ChannelId::new(9), caller: None, from: None })
}

fn answer(token: u64) -> Response {
    Response::Answer { token, generation: generation(), result: Err(Refusal::resend()) }
}

/// A broker's end of a connection.
struct Connected {
    requests: Receiver<Request>,
    responses: Sender<Response>,
}

fn connection() -> (Connected, Opened) {
    let (to_broker, requests) = pipe(1 << 20);
    let (responses, from_broker) = pipe(1 << 20);
    (Connected { requests, responses }, Opened { requests: to_broker, responses: from_broker })
}

impl Connected {
    fn say(&self, response: Response) {
        assert!(self.responses.send(response, 1).is_ok());
    }

    /// The token of the next request.
    async fn asked(&mut self) -> u64 {
        match next(&mut self.requests).await {
            Request::Attach(attach) => attach.token,
            other => panic!("{other:?}"),
        }
    }
}

/// A gateway's end, and the way in for new connections.
struct Played {
    requests: Sender<Request>,
    responses: Receiver<Response>,
    news: mpsc::Sender<(Node, Opened)>,
    _addresses: watch::Sender<Addresses>,
}

/// Runs a router with one connection to each of some brokers.
fn run(opened: Vec<Opened>) -> Played {
    let all: Addresses =
        (0..opened.len()).map(|node| (address(node), "localhost".to_owned())).collect();
    let (addresses, told) = watch::channel(all);
    let about = About { process: 7, name: "ws-1".to_owned(), roles: Vec::new(), connections: 0 };
    let about = watch::channel(about).1;
    let dialler = Dialler::new(None, PATIENCE).unwrap();
    let (requests, from_gateway) = pipe(1 << 20);
    let (to_gateway, responses) = pipe(1 << 20);
    let (news, heard) = mpsc::channel(NEWS);
    let router = Router {
        addresses: told,
        keeper: Arc::new(Keeper { dialler, about }),
        routes: Routes::default(),
        brokers: brokers(opened),
        next_node: 0,
        turn: Turn::default(),
        passing: VecDeque::new(),
        requests: from_gateway,
        responses: to_gateway,
        news: news.clone(),
        heard,
        started: Instant::now(),
    };
    tokio::spawn(router.run());
    Played { requests, responses, news, _addresses: addresses }
}

/// Brokers whose connections nobody keeps open.
fn brokers(opened: Vec<Opened>) -> BTreeMap<Node, BrokerAt> {
    let opened = opened.into_iter().enumerate();
    let at = opened.map(|(node, opened)| {
        let keeper = tokio::spawn(pending());
        (node, BrokerAt { address: address(node), open: Some(opened), keeper })
    });
    at.collect()
}

/// The next thing in a pipe; nobody waits for long where time is virtual.
async fn next<T>(from: &mut Receiver<T>) -> T {
    let mut heard = Vec::new();
    let hearing = from.recv(&mut heard, 1);
    tokio::time::timeout(Duration::from_secs(60), hearing).await.unwrap().unwrap();
    heard.remove(0)
}

impl Played {
    /// What the gateway hears next, in words.
    async fn hear(&mut self) -> String {
        match next(&mut self.responses).await {
            Response::Leading(leading) => format!("{} led", leading.leads.len()),
            Response::Answer { token, result: Err(refusal), .. } => {
                format!("{token} {}", refusal.code.name())
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_replaces_one_whose_end_was_not_heard_begins_anew() {
    let (mut old, opened) = connection();
    let mut gateway = run(vec![opened]);
    old.say(leading());
    assert_eq!(gateway.hear().await, "1 led");
    assert!(gateway.requests.send(attach(1), 1).is_ok());
    assert_eq!(old.asked().await, 1);
    // It ends, with an answer on its way, and is there again before the router looks.
    old.say(answer(1));
    drop(old);
    let (mut new, opened) = connection();
    new.say(leading());
    assert!(gateway.news.try_send((0, opened)).is_ok());
    assert_eq!(gateway.hear().await, "1 unknown", "what it was asked is given back");
    assert_eq!(gateway.hear().await, "0 led");
    assert_eq!(gateway.hear().await, "1 led", "so that the gateway attaches again");
    assert!(gateway.requests.send(attach(2), 1).is_ok());
    assert_eq!(new.asked().await, 2);
}

/// Whose turn each is, of three brokers and a gateway of which some always have something.
async fn turns(gateway_has: bool, brokers_have: [bool; 3], count: usize) -> String {
    let (to_router, mut from_gateway) = pipe(1 << 20);
    let (connected, opened): (Vec<_>, Vec<_>) = (0..3).map(|_| connection()).unzip();
    let (mut turn, mut brokers) = (Turn::default(), brokers(opened));
    let mut cx = Context::from_waker(std::task::Waker::noop());
    let mut all = String::new();
    for _ in 0..count {
        if gateway_has {
            assert!(to_router.send(attach(1), 1).is_ok());
        }
        for (broker, _) in connected.iter().zip(brokers_have).filter(|(_, has)| *has) {
            broker.say(leading());
        }
        let (mut requests, mut responses) = (Vec::new(), Vec::new());
        let (cx, requests, responses) = (&mut cx, &mut requests, &mut responses);
        match poll(&mut turn, &mut from_gateway, &mut brokers, cx, requests, responses) {
            Poll::Ready(Wake::Requests) => all.push('g'),
            Poll::Ready(Wake::Broker(node, true)) => all += &node.to_string(),
            _ => all.push('-'),
        }
    }
    all
}

#[tokio::test]
async fn nobody_who_always_has_something_keeps_the_others_waiting() {
    assert_eq!(turns(true, [true, true, true], 8).await, "g1g2g0g1");
    assert_eq!(turns(false, [true, true, true], 6).await, "120120");
    assert_eq!(turns(true, [false, false, true], 6).await, "g2g2g2");
}

#[tokio::test]
async fn who_has_something_alone_has_every_turn() {
    assert_eq!(turns(true, [false; 3], 3).await, "ggg");
    assert_eq!(turns(false, [false, true, false], 3).await, "111");
    assert_eq!(turns(false, [false; 3], 3).await, "---");
}

#[tokio::test]
async fn what_passes_weighs_as_much_as_before() {
    let (mut broker, opened) = connection();
    let mut gateway = run(vec![opened]);
    broker.say(leading());
    next(&mut gateway.responses).await;
    for token in 1..=3 {
        assert!(gateway.requests.send(attach(token), 1).is_ok());
        assert_eq!(broker.asked().await, token);
    }
    for token in 1..=3 {
        // More than half of what a pipe of this test holds.
        broker.responses.send_when_room(answer(token), 600 << 10).await.unwrap();
    }
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    let mut heard = Vec::new();
    gateway.responses.recv(&mut heard, 8).await.unwrap();
    assert_eq!(heard.len(), 1, "the others wait where they are bounded");
}

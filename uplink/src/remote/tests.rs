//! Gateways and brokers over real sockets, in the clear and with certificates.

use std::{
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use chappe_protocol::{ChannelId, Incarnation, PartitionId};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};

use super::*;
use crate::{
    About, Attach, Broker, Generation, Heads, Leading, Overview, Receiver, Refusal, Request,
    Response, Sender, pipe,
    status::{BrokerStatus, PartitionState, PartitionStatus},
};

const PATIENCE: Patience =
    Patience { heartbeat: Duration::from_millis(50), silence: Duration::from_millis(500) };

/// A broker that leads every partition in one generation, and answers attaches with its epoch.
struct Toy {
    epoch: u64,
    asked: Arc<Mutex<usize>>,
}

impl Broker for Toy {
    fn open(&self) -> (Sender<Request>, Receiver<Response>) {
        let (to_gateway, gateway_end) = pipe(1 << 20);
        let (gateway_start, mut from_gateway) = pipe(1 << 20);
        let (epoch, asked) = (self.epoch, Arc::clone(&self.asked));
        tokio::spawn(async move {
            let generation = Generation { incarnation: Incarnation(1), epoch };
            let leads = vec![(PartitionId(0), generation)];
            drop(to_gateway.send(Response::Leading(Leading { partitions: 1, leads }), 1));
            let mut batch = Vec::new();
            while from_gateway.recv(&mut batch, 8).await.is_ok() {
                for request in batch.drain(..) {
                    let Request::Attach(attach) = request else { continue };
                    *asked.lock().unwrap() += 1;
                    let result = Err(Refusal::resend());
                    let token = attach.token;
                    drop(to_gateway.send(Response::Answer { token, generation, result }, 1));
                }
            }
        });
        (gateway_start, gateway_end)
    }
}

impl Overview for Toy {
    async fn status(&self) -> BrokerStatus {
        let generation = Generation { incarnation: Incarnation(1), epoch: self.epoch };
        let held = PartitionStatus {
            partition: PartitionId(0),
            state: PartitionState::Leading,
            generation,
            end: 9,
            checkpoint: Some(7),
            unprojected_records: 2,
            unprojected_bytes: 100,
            oldest_ms: Some(3),
            halt: None,
        };
        BrokerStatus {
            name: "toy".to_owned(),
            up_ms: 1,
            partitions: 1,
            holds: vec![held],
            unprojected_bytes_max: 1_000,
            unprojected_age_ms_max: 1_000,
            pipes: 0,
            gateways: Vec::new(),
        }
    }
}

struct Served {
    address: SocketAddr,
    asked: Arc<Mutex<usize>>,
    task: JoinHandle<()>,
}

async fn serve(epoch: u64, at: Option<SocketAddr>, tls: Option<TlsFiles>) -> Served {
    let at = at.unwrap_or_else(|| "127.0.0.1:0".parse().unwrap());
    let listener = TcpListener::bind(at).await.unwrap();
    let address = listener.local_addr().unwrap();
    let asked = Arc::new(Mutex::new(0));
    let broker = Arc::new(Toy { epoch, asked: Arc::clone(&asked) });
    let task = tokio::spawn(listen(listener, broker, tls.as_ref(), PATIENCE).unwrap());
    Served { address, asked, task }
}

fn attach(token: u64) -> Request {
    Request::Attach(Attach { token, channel: ChannelId::new(9), caller: None, from: None })
}

/// A gateway's end.
struct Gateway {
    requests: Sender<Request>,
    responses: Receiver<Response>,
    about: watch::Sender<About>,
    _remote: Remote,
}

fn about(name: &str, connections: u64) -> About {
    let roles = vec!["gateway-ws".to_owned()];
    About { process: 7, name: name.to_owned(), roles, connections }
}

impl Gateway {
    fn open(brokers: &[SocketAddr], tls: Option<&TlsFiles>) -> Self {
        let brokers = brokers.iter().map(ToString::to_string).collect();
        let (about, told) = watch::channel(about("ws-1", 3));
        let remote = Remote::new(brokers, tls, PATIENCE, told).unwrap();
        let (requests, responses) = remote.open();
        Self { requests, responses, about, _remote: remote }
    }

    async fn hear(&mut self) -> Response {
        let mut heard = Vec::new();
        let hearing = self.responses.recv(&mut heard, 1);
        tokio::time::timeout(Duration::from_secs(20), hearing).await.unwrap().unwrap();
        heard.remove(0)
    }

    /// Waits until the partition is led in this generation, or by nobody.
    async fn led_in(&mut self, epoch: Option<u64>) {
        loop {
            if let Response::Leading(leading) = self.hear().await
                && leading.leads.first().map(|(_, generation)| generation.epoch) == epoch
            {
                return;
            }
        }
    }

    async fn ask(&mut self, token: u64) -> Generation {
        assert!(self.requests.send(attach(token), 1).is_ok());
        loop {
            if let Response::Answer { token: answered, generation, .. } = self.hear().await {
                assert_eq!(answered, token);
                return generation;
            }
        }
    }
}

#[tokio::test]
async fn a_gateway_finds_who_leads_and_follows_when_that_moves() {
    let (old, new) = (serve(5, None, None).await, serve(7, None, None).await);
    let mut gateway = Gateway::open(&[old.address], None);
    gateway.led_in(Some(5)).await;
    assert_eq!(gateway.ask(1).await.epoch, 5);
    let mut gateway = Gateway::open(&[old.address, new.address], None);
    gateway.led_in(Some(7)).await;
    assert_eq!(gateway.ask(1).await.epoch, 7);
    assert_eq!((*old.asked.lock().unwrap(), *new.asked.lock().unwrap()), (1, 1));
    // Its end is heard; the older one is not believed again; one that comes back is.
    new.task.abort();
    gateway.led_in(None).await;
    assert_eq!(gateway.ask(2).await.epoch, 0, "given back from here");
    assert_eq!(*old.asked.lock().unwrap(), 1);
    let _again = serve(9, Some(new.address), None).await;
    gateway.led_in(Some(9)).await;
    assert_eq!(gateway.ask(3).await.epoch, 9);
}

#[tokio::test]
async fn an_end_of_the_gateway_is_heard_by_the_broker() {
    struct Watched(tokio::sync::mpsc::Sender<Receiver<Request>>);
    impl Broker for Watched {
        fn open(&self) -> (Sender<Request>, Receiver<Response>) {
            let (to_gateway, gateway_end) = pipe(1 << 20);
            let (gateway_start, from_gateway) = pipe(1 << 20);
            drop(to_gateway.send(Response::Heads(Heads { heads: Vec::new() }), 1));
            std::mem::forget(to_gateway); // the broker's half stays
            self.0.try_send(from_gateway).unwrap();
            (gateway_start, gateway_end)
        }
    }
    impl Overview for Watched {
        async fn status(&self) -> BrokerStatus {
            std::future::pending().await
        }
    }
    let (opened, mut pipes) = tokio::sync::mpsc::channel(1);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(listen(listener, Arc::new(Watched(opened)), None, PATIENCE).unwrap());
    let mut gateway = Gateway::open(&[address], None);
    assert!(matches!(gateway.hear().await, Response::Heads(_)));
    let mut from_gateway = pipes.recv().await.unwrap();
    drop(gateway);
    assert!(from_gateway.recv(&mut Vec::new(), 1).await.is_err());
    // And who asks it how it stands is not kept waiting for ever.
    let answer = ask(&[address.to_string()], None, PATIENCE).await.unwrap().remove(0).answer;
    assert!(answer.is_err(), "{answer:?}");
}

/// Asks until the answer is as wanted.
async fn until(brokers: &[String], wanted: impl Fn(&[Asked]) -> bool) -> Vec<Asked> {
    let asking = async {
        loop {
            let asked = ask(brokers, None, PATIENCE).await.unwrap();
            if wanted(&asked) {
                return asked;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), asking).await.unwrap()
}

#[tokio::test]
async fn who_asks_is_told_how_each_broker_stands_and_why_one_is_silent() {
    let (one, other) = (serve(5, None, None).await, serve(7, None, None).await);
    let mut gateway = Gateway::open(&[one.address, other.address], None);
    gateway.led_in(Some(7)).await;
    let brokers = [one.address.to_string(), other.address.to_string()];
    let of = |asked: &[Asked], address: SocketAddr| -> BrokerStatus {
        let found = asked.iter().find(|of| of.address == address.to_string()).unwrap();
        found.answer.clone().unwrap()
    };
    let connected = |asked: &[Asked], connections: u64| {
        asked.iter().all(|of| {
            let gateways = &of.answer.as_ref().unwrap().gateways;
            let told = gateways.first();
            gateways.len() == 1 && told.is_some_and(|told| told.about.connections == connections)
        })
    };
    let asked = until(&brokers, |asked| connected(asked, 3)).await;
    assert_eq!(of(&asked, one.address).holds[0].generation.epoch, 5);
    let told = &of(&asked, other.address).gateways[0];
    assert_eq!((told.about.clone(), told.pipes), (about("ws-1", 3), 1));
    assert_eq!(told.address, "127.0.0.1");
    // What changes at the gateway is told with the heartbeats.
    gateway.about.send_modify(|about| about.connections = 4);
    until(&brokers, |asked| connected(asked, 4)).await;
    // One that is gone says why, and is not waited for; so does one that has no name.
    one.task.abort();
    drop(one.task.await);
    let mut brokers = brokers.to_vec();
    brokers.push("no.such.host.invalid:7402".to_owned());
    let asked = ask(&brokers, None, PATIENCE).await.unwrap();
    let gone = asked.iter().find(|of| of.address == one.address.to_string()).unwrap();
    assert!(gone.answer.as_ref().unwrap_err().contains("refused"), "{gone:?}");
    assert!(asked.iter().any(|of| of.address.starts_with("no.such") && of.answer.is_err()));
    assert!(of(&asked, other.address).up_ms > 0);
}

#[tokio::test]
async fn a_gateway_that_describes_itself_beyond_the_limits_is_not_served() {
    let broker = serve(5, None, None).await;
    let (about, told) = watch::channel(about(&"n".repeat(About::NAME_BYTES_MAX + 1), 3));
    let remote = Remote::new(vec![broker.address.to_string()], None, PATIENCE, told).unwrap();
    let (requests, mut responses) = remote.open();
    let mut heard = Vec::new();
    let hearing = tokio::time::timeout(Duration::from_millis(500), responses.recv(&mut heard, 8));
    assert!(hearing.await.is_err(), "it heard {heard:?}");
    about.send_modify(|about| about.name = "ws-1".to_owned());
    let mut gateway = Gateway { requests, responses, about, _remote: remote };
    gateway.led_in(Some(5)).await;
}

/// An authority and a certificate of it for localhost, as files.
fn certificates(dir: &Path, name: &str) -> TlsFiles {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let ca = params.self_signed(&key).unwrap();
    let issuer = Issuer::new(params, key);
    let key = KeyPair::generate().unwrap();
    let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
    let leaf = CertificateParams::new(names).unwrap().signed_by(&key, &issuer).unwrap();
    let file = |what: &str, pem: String| {
        let path = dir.join(format!("{name}-{what}.pem"));
        std::fs::write(&path, pem).unwrap();
        path
    };
    TlsFiles {
        ca: file("ca", ca.pem()),
        cert: file("cert", leaf.pem()),
        key: file("key", key.serialize_pem()),
    }
}

#[tokio::test]
async fn with_certificates_only_those_of_the_authority_connect() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let dir = tempfile::tempdir().unwrap();
    let (ours, others) = (certificates(dir.path(), "ours"), certificates(dir.path(), "others"));
    let broker = serve(5, None, Some(ours.clone())).await;
    let mut gateway = Gateway::open(&[broker.address], Some(&ours));
    gateway.led_in(Some(5)).await;
    assert_eq!(gateway.ask(1).await.epoch, 5);
    // A stranger's certificate, the wrong authority, and none at all.
    let stranger = TlsFiles { cert: others.cert.clone(), key: others.key.clone(), ..ours.clone() };
    let mistaken = TlsFiles { ca: others.ca.clone(), ..ours.clone() };
    for tls in [Some(stranger), Some(mistaken), None] {
        let mut refused = Gateway::open(&[broker.address], tls.as_ref());
        let heard = tokio::time::timeout(Duration::from_millis(1_500), refused.hear()).await;
        assert!(heard.is_err(), "{tls:?} heard {heard:?}");
        assert_eq!(refused.ask(1).await.epoch, 0);
    }
    // Nor does one of them learn how the broker stands.
    let address = [broker.address.to_string()];
    for (tls, may) in [(Some(&ours), true), (Some(&others), false), (None, false)] {
        let asked = ask(&address, tls, PATIENCE).await.unwrap();
        assert_eq!(asked[0].answer.is_ok(), may, "{asked:?}");
    }
    assert_eq!(*broker.asked.lock().unwrap(), 1);
    // The one that may goes on.
    assert_eq!(gateway.ask(2).await.epoch, 5);
}

#[tokio::test]
async fn renewed_certificates_are_used_from_the_next_connection_on() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let dir = tempfile::tempdir().unwrap();
    let [files, old, new] = ["files", "old", "new"].map(|name| certificates(dir.path(), name));
    let put = |from: &Path, to: &Path| assert!(std::fs::copy(from, to).unwrap() > 0);
    let put_all = |from: &TlsFiles| {
        let (from, to) = ([&from.cert, &from.key, &from.ca], [&files.cert, &files.key, &files.ca]);
        from.into_iter().zip(to).for_each(|(from, to)| put(from, to));
    };
    put_all(&old);
    let broker = serve(5, None, Some(files.clone())).await;
    let address = [broker.address.to_string()];
    let is_served = async |tls: &TlsFiles| {
        let asked = ask(&address, Some(tls), PATIENCE).await.unwrap();
        asked[0].answer.is_ok()
    };
    let mut gateway = Gateway::open(&[broker.address], Some(&files));
    gateway.led_in(Some(5)).await;
    put(&new.cert, &files.cert);
    assert!(is_served(&old).await, "a certificate without its key is no reason to change");
    put_all(&new);
    assert!(is_served(&new).await);
    assert!(!is_served(&old).await);
    // What is connected stays so, and shows the new one when it connects anew.
    assert_eq!(gateway.ask(1).await.epoch, 5);
    broker.task.abort();
    gateway.led_in(None).await;
    let _again = serve(7, Some(broker.address), Some(new)).await;
    gateway.led_in(Some(7)).await;
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let dir = tempfile::tempdir().unwrap();
    let files = certificates(dir.path(), "a");
    let missing = TlsFiles { key: dir.path().join("nowhere.pem"), ..files.clone() };
    let error = missing.client().unwrap_err().to_string();
    assert!(error.contains("nowhere.pem"), "{error}");
    let swapped = TlsFiles { ca: files.key.clone(), ..files.clone() };
    assert!(swapped.server().unwrap_err().to_string().contains("no certificate"));
    let foreign = certificates(dir.path(), "b");
    let mixed = TlsFiles { key: foreign.key, ..files };
    assert!(matches!(mixed.server(), Err(TlsError::Unusable(_))));
}

//! TLS and logins, right and wrong.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use chappe_protocol::PartitionId;

use super::{Topic, var};
use crate::log::kafka::{
    Connection, Identity, KafkaConfig, KafkaLog, Login, Mechanism, OpenError, Tls,
};
use crate::log::{Log, Offset};

fn login(password: &str) -> Login {
    let (user, password) = (var("CHAPPE_TEST_KAFKA_USER"), password.to_owned());
    Login { mechanism: Mechanism::ScramSha512, user, password }
}

fn secured(ca: &str, password: &str) -> Connection {
    let tls = Tls { ca: Some(PathBuf::from(var(ca))), identity: None };
    let nodes = Connection::to(&var("CHAPPE_TEST_KAFKA_TLS"));
    Connection { tls: Some(tls), login: Some(login(password)), ..nodes }
}

fn config(topic: &Topic, connection: Connection) -> KafkaConfig {
    KafkaConfig { connection, call_timeout: Duration::from_secs(5), ..topic.config() }
}

async fn why_not(topic: &Topic, connection: Connection) -> String {
    match KafkaLog::open(config(topic, connection)).await {
        Err(error @ OpenError::Unavailable { .. }) => error.to_string(),
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("it is open"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_over_tls_appends_and_reads() {
    let topic = Topic::new(1).await;
    let mut connection = secured("CHAPPE_TEST_CA", &var("CHAPPE_TEST_KAFKA_PASSWORD"));
    for identity in [false, true] {
        if identity {
            let certificate = PathBuf::from(var("CHAPPE_TEST_CLIENT_CERT"));
            let key = PathBuf::from(var("CHAPPE_TEST_CLIENT_KEY"));
            connection.tls.as_mut().unwrap().identity = Some(Identity { certificate, key });
        }
        let log = KafkaLog::open(config(&topic, connection.clone())).await.unwrap();
        let (mut appender, mut acks) = log.appender();
        appender.append(PartitionId(0), 1, Bytes::from_static(b"secret")).unwrap();
        let at = Offset(u64::from(identity));
        assert_eq!(acks.recv().await.unwrap().remove(0).result, Ok(at));
        assert_eq!(log.read(PartitionId(0), at, 100).await.unwrap()[0].record, "secret");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_of_another_authority_are_refused_and_the_error_says_so() {
    let topic = Topic::new(1).await;
    let password = var("CHAPPE_TEST_KAFKA_PASSWORD");
    let why = why_not(&topic, secured("CHAPPE_TEST_OTHER_CA", &password)).await;
    assert!(why.contains("certificate verify failed"), "{why}");
    assert!(!why.contains(&password), "{why}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_password_is_refused_and_the_error_says_so() {
    let topic = Topic::new(1).await;
    let why = why_not(&topic, secured("CHAPPE_TEST_CA", "another-word")).await;
    assert!(why.contains("uthentication"), "{why}");
    assert!(!why.contains("another-word"), "{why}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plain_text_to_a_tls_listener_is_no_answer() {
    let topic = Topic::new(1).await;
    why_not(&topic, Connection::to(&var("CHAPPE_TEST_KAFKA_TLS"))).await;
}

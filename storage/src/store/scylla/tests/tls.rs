//! Who the nodes are, and who we are.

use super::*;

fn over_tls(ca: &str) -> ScyllaOptions {
    let nodes = given("CQL_TLS");
    ScyllaOptions {
        nodes: nodes.split(',').map(str::to_owned).collect(),
        tls: Some(ScyllaTls { ca: Some(given(ca).into()) }),
        ..options()
    }
}

async fn refused(options: ScyllaOptions) -> String {
    let store = ScyllaStore::new(options.clone()).unwrap();
    let error = store.check().await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
    // The schema's commands say the same.
    let schema = check(&options).await.unwrap_err();
    assert!(matches!(schema, SchemaError::Unreachable(_)), "{schema:?}");
    let (error, schema) = (error.to_string(), schema.to_string());
    assert!(!error.contains('\n') && error.contains(&options.nodes[0]), "{error}");
    assert!(error.contains(schema.rsplit(": ").next().unwrap()), "{error} and {schema}");
    error
}

#[tokio::test]
async fn the_store_works_over_tls() {
    shared_keyspace().await;
    let store = ScyllaStore::new(over_tls("CA")).unwrap();
    let key = Key::Head(ChannelId::new(getrandom::u64().unwrap()));
    let stamp = crate::store::Stamp(1 << 40 | 1);
    let value = Bytes::from_static(b"in secret");
    let write = Mutation { key, stamp, value: Some(value.clone()) };
    store.write(vec![write]).await.unwrap();
    assert_eq!(store.get(key).await.unwrap(), Some(Row { stamp, value }));
}

#[tokio::test]
async fn a_server_of_another_authority_is_refused() {
    let error = refused(over_tls("OTHER_CA")).await;
    assert!(error.contains("certificate"), "{error}");
}

#[tokio::test]
async fn a_wrong_password_is_refused_and_not_shown() {
    let wrong = ScyllaLogin { user: "cassandra".to_owned(), password: "not-it".to_owned() };
    let options = ScyllaOptions { login: Some(wrong), ..over_tls("CA") };
    assert!(!format!("{options:?}").contains("not-it"));
    let error = refused(options).await;
    assert!(error.contains("password") && !error.contains("not-it"), "{error}");
}

#[tokio::test]
async fn options_that_cannot_be_meant_are_refused_at_once() {
    let refused = |options| ScyllaStore::new(options).err().unwrap();
    let none = ScyllaOptions::at(Vec::<String>::new());
    assert_eq!(refused(none), ScyllaOptionsError::Nodes);
    for keyspace in ["", "Chappe", "1st", "a-b", "a b", "a;drop", &"a".repeat(49)] {
        let odd = ScyllaOptions { keyspace: keyspace.to_owned(), ..options() };
        assert_eq!(refused(odd), ScyllaOptionsError::Keyspace, "{keyspace}");
    }
    let empty = tempfile::NamedTempFile::new().unwrap();
    for file in ["/nowhere/ca.pem".into(), empty.path().to_owned()] {
        let tls = Some(ScyllaTls { ca: Some(file.clone()) });
        let error = refused(ScyllaOptions { tls, ..options() }).to_string();
        assert!(error.contains(file.to_str().unwrap()), "{error}");
    }
}

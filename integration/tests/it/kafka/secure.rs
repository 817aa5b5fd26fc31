//! Brokers that ask who is there, and clients that do not trust every broker.

use forebay_api::Blame;
use forebay_integration::{Broker, Kafka};
use rdkafka::admin::AdminOptions;
use tokio::sync::OnceCell;
use tokio::time::Instant;

use super::*;

/// The one secure broker of this module.
async fn broker() -> &'static Kafka {
    static BROKER: OnceCell<Kafka> = OnceCell::const_new();
    BROKER.get_or_init(|| Kafka::start(Broker::Secure)).await
}

fn admin(mechanism: &str) -> Value {
    json!({"mechanism": mechanism, "username": "admin", "password": "admin-secret"})
}

/// Writes an event with this configuration and finds it there.
async fn writes(mut config: Value) {
    let topic = broker().await.topic("secure", 1).await;
    config["topic"] = json!(topic.name());
    let lake = destination(config);
    deliver(&*lake, &mut [Unit::new(Table::new("shop", "orders").batch([insert(1)]))]).await.unwrap();
    assert_eq!(topic.expect(1).await[0].key_text(), r#"{"id":1}"#);
}

/// What opening with this configuration fails with.
async fn refused(config: Value) -> Fault {
    destination(config).open().await.unwrap_err()
}

#[tokio::test]
async fn every_way_to_prove_a_password_works_with_and_without_encryption() {
    let kafka = broker().await;
    let [sasl, tls, both] = kafka.secure_bootstraps();
    let ca = json!({"ca": kafka.ca_certificate()});
    for mechanism in ["PLAIN", "SCRAM-SHA-256"] {
        writes(json!({"brokers": [sasl], "sasl": admin(mechanism)})).await;
        writes(json!({"brokers": [both], "sasl": admin(mechanism), "tls": ca})).await;
    }
    writes(json!({"brokers": [tls], "tls": ca})).await;
    for verify in ["ca", "none"] {
        writes(json!({"brokers": [tls], "tls": {"ca": kafka.ca_certificate(), "verify": verify}})).await;
    }
    writes(json!({"brokers": [tls], "tls": {"verify": "none"}})).await;
}

#[tokio::test]
async fn a_wrong_password_is_fatal_and_names_what_to_correct() {
    let [sasl, _, both] = broker().await.secure_bootstraps();
    for (brokers, tls) in [(&sasl, Value::Null), (&both, json!({"verify": "none"}))] {
        for mechanism in ["PLAIN", "SCRAM-SHA-256"] {
            let wrong = json!({"mechanism": mechanism, "username": "admin", "password": "hunter2"});
            let begun = Instant::now();
            let fault = refused(json!({"brokers": [brokers], "sasl": wrong, "tls": tls})).await;
            assert!(
                matches!(fault, Fault::Fatal { blame: Blame::Configuration, .. }),
                "{mechanism}: {fault:?}"
            );
            assert!(fault.remedy().unwrap().contains("`sasl.password`"), "{fault:?}");
            assert!(!format!("{fault:?}").contains("hunter2"));
            assert!(begun.elapsed().as_secs() < 8, "{:?}", begun.elapsed());
        }
    }
}

#[tokio::test]
async fn a_mechanism_that_the_broker_lacks_is_fatal() {
    let [sasl, ..] = broker().await.secure_bootstraps();
    let fault = refused(json!({"brokers": [sasl], "sasl": admin("SCRAM-SHA-512")})).await;
    assert!(matches!(fault, Fault::Fatal { blame: Blame::Configuration, .. }), "{fault:?}");
    assert!(fault.to_string().contains("SCRAM-SHA-512"), "{fault}");
}

#[tokio::test]
async fn a_broker_whose_certificate_nobody_trusts_is_fatal() {
    let kafka = broker().await;
    let [_, tls, _] = kafka.secure_bootstraps();
    let stranger = tempfile::NamedTempFile::new().unwrap();
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(stranger.path(), other.cert.pem()).unwrap();
    let fault = refused(json!({"brokers": [tls], "tls": {"ca": stranger.path()}})).await;
    assert!(matches!(fault, Fault::Fatal { blame: Blame::Configuration, .. }), "{fault:?}");
    assert!(fault.remedy().unwrap().contains("`tls.ca`"), "{fault:?}");
    // The certificate is for `localhost` and 127.0.0.1, and for no other name of this machine.
    let renamed = tls.replace("127.0.0.1", "127.0.0.2");
    let misnamed = refused(json!({"brokers": [renamed], "tls": {"ca": kafka.ca_certificate()}})).await;
    assert!(misnamed.remedy().is_some(), "{misnamed:?}");
}

#[tokio::test]
async fn a_file_that_is_not_there_is_named() {
    let [_, tls, _] = broker().await.secure_bootstraps();
    let fault = refused(json!({"brokers": [tls], "tls": {"ca": "/nowhere/ca.pem"}})).await;
    assert!(matches!(fault, Fault::Fatal { blame: Blame::Configuration, .. }), "{fault:?}");
    assert!(fault.to_string().contains("/nowhere/ca.pem"), "{fault}");
}

#[tokio::test]
async fn a_user_who_may_not_write_is_told_what_to_allow() {
    let kafka = broker().await;
    let [sasl, ..] = kafka.secure_bootstraps();
    let topic = kafka.topic("forbidden", 1).await;
    let alice = json!({"mechanism": "PLAIN", "username": "alice", "password": "alice-secret"});
    let lake = destination(json!({"brokers": [sasl], "sasl": alice, "topic": topic.name()}));
    let mut unit = Unit::new(Table::new("shop", "orders").batch([insert(1)]));
    let fault = deliver(&*lake, std::slice::from_mut(&mut unit)).await.unwrap_err();
    assert!(matches!(fault, Fault::Fatal { blame: Blame::Outside, .. }), "{fault:?}");
    assert!(fault.remedy().unwrap().contains("kafka-acls.sh"), "{fault:?}");
    assert_eq!(unit.progress.open(), 1);
}

#[tokio::test]
async fn a_listener_of_another_kind_is_retried_and_hinted_at() {
    let [sasl, tls, _] = broker().await.secure_bootstraps();
    for config in [
        json!({"brokers": [tls]}),
        json!({"brokers": [sasl]}),
        json!({"brokers": [broker().await.bootstrap()], "tls": {}}),
    ] {
        let fault = refused(config.clone()).await;
        assert!(fault.remedy().unwrap().contains("`tls` and `sasl`"), "{config}: {fault:?}");
    }
}

#[tokio::test]
async fn a_check_tells_what_is_wrong_and_that_a_password_is_sent_in_the_clear() {
    let kafka = broker().await;
    let [sasl, ..] = kafka.secure_bootstraps();
    let topic = kafka.topic("checked", 1).await;
    let config =
        |sasl_setting: Value| json!({"brokers": [sasl], "sasl": sasl_setting, "topic": topic.name()});
    let findings = told(&check(config(admin("PLAIN"))).await);
    assert!(
        findings[0].starts_with("`sasl.mechanism: PLAIN` sends the password unencrypted"),
        "{findings:?}"
    );
    let wrong = json!({"mechanism": "PLAIN", "username": "admin", "password": "hunter2"});
    let findings = told(&check(config(wrong)).await);
    assert!(findings[0].contains("Some(Configuration)"), "{findings:?}");
    // Checking creates nothing.
    let options = AdminOptions::new();
    assert!(kafka.admin().delete_topics(&[topic.name()], &options).await.unwrap()[0].is_ok());
}

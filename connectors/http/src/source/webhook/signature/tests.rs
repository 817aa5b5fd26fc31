use http::Method;

use super::*;
use crate::source::testing::{RECEIVED, headers};

fn check(signature: &str, header: &[(&str, &str)], body: &[u8], received: i64) -> Result<(), Wrong> {
    let signature: Signature = serde_json::from_str(signature).unwrap();
    let headers = headers(header);
    let (method, path, query) = (&Method::POST, "/webhook", "");
    signature.check(&Request { method, path, query, headers: &headers, body, received, client: None })
}

/// The example of GitHub's documentation.
#[test]
fn github_signs_as_its_documentation_says() {
    const GITHUB: &str = r#"{"type":"github","secret":"It's a Secret to Everybody"}"#;
    const GOOD: &str = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
    let signed = |value: &str, body: &[u8]| check(GITHUB, &[("X-Hub-Signature-256", value)], body, RECEIVED);
    assert_eq!(signed(GOOD, b"Hello, World!"), Ok(()));
    assert_eq!(signed(GOOD, b"Hello, World?"), Err(Wrong::Mismatch));
    assert_eq!(signed(GOOD, b""), Err(Wrong::Mismatch));
    assert_eq!(
        signed(&GOOD[..GOOD.len() - 2], b"Hello, World!"),
        Err(Wrong::Mismatch),
        "a part is not enough"
    );
    for malformed in ["", "sha256=", &GOOD[7..], &GOOD[..GOOD.len() - 1], "sha1=00", "sha256=zz", "sha256=é"]
    {
        assert_eq!(signed(malformed, b"Hello, World!"), Err(Wrong::Malformed), "{malformed}");
    }
    assert_eq!(check(GITHUB, &[], b"Hello, World!", RECEIVED), Err(Wrong::Missing));
    assert_eq!(check(GITHUB, &[("X-Hub-Signature", GOOD)], b"Hello, World!", RECEIVED), Err(Wrong::Missing));
    let twice = [("x-hub-signature-256", GOOD), ("x-hub-signature-256", GOOD)];
    assert_eq!(check(GITHUB, &twice, b"Hello, World!", RECEIVED), Err(Wrong::Malformed));
    let rotated = r#"{"type":"github","secret":"new","old_secret":"It's a Secret to Everybody"}"#;
    assert_eq!(check(rotated, &[("x-hub-signature-256", GOOD)], b"Hello, World!", RECEIVED), Ok(()));
}

/// The example of Slack's documentation.
#[test]
fn slack_signs_its_time_as_its_documentation_says() {
    const SLACK: &str = r#"{"type":"slack","secret":"8f742231b10e8888abcd99yyyzzz85a5"}"#;
    const TIME: &str = "1531420618";
    const GOOD: &str = "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503";
    const BODY: &[u8] = b"token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=\
G8PSS9T3V&channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text=&response_url=\
https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN&trigger_id=\
398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c";
    let at = |seconds: i64, time: &str| {
        let header = [("X-Slack-Signature", GOOD), ("X-Slack-Request-Timestamp", time)];
        check(SLACK, &header, BODY, seconds * 1_000_000)
    };
    assert_eq!(at(1_531_420_618, TIME), Ok(()));
    assert_eq!(at(1_531_420_618 + 300, TIME), Ok(()));
    assert_eq!(at(1_531_420_618 + 301, TIME), Err(Wrong::Stale));
    assert_eq!(at(1_531_420_618 - 301, TIME), Err(Wrong::Stale));
    assert_eq!(at(1_531_420_619, "1531420619"), Err(Wrong::Mismatch), "the time is signed too");
    for time in ["", "-1", "+1531420618", "1.5", "99999999999999999999", "now"] {
        assert_eq!(at(1_531_420_618, time), Err(Wrong::Malformed), "{time}");
    }
    assert_eq!(check(SLACK, &[("x-slack-signature", GOOD)], BODY, 0), Err(Wrong::Missing));
}

#[test]
fn stripe_may_sign_with_several_secrets_at_once() {
    const STRIPE: &str = r#"{"type":"stripe","secret":"whsec_test","tolerance":"10s"}"#;
    const GOOD: &str = "114099b2736e690c37f342797e7882e4516dc140974dc14334f4b2fb0b2671d5";
    const BODY: &[u8] = br#"{"id":"evt_1"}"#;
    let signed = |value: &str| check(STRIPE, &[("Stripe-Signature", value)], BODY, 1_795_372_440_000_000);
    let zeros = "0".repeat(64);
    assert_eq!(signed(&format!("t=1795372440,v1={GOOD},v0={zeros}")), Ok(()));
    assert_eq!(signed(&format!("t=1795372440, v1={zeros}, v1={GOOD}")), Ok(()));
    assert_eq!(signed(&format!("t=1795372440,v1={zeros}")), Err(Wrong::Mismatch));
    assert_eq!(signed(&format!("t=1795372441,v1={GOOD}")), Err(Wrong::Mismatch));
    assert_eq!(signed(&format!("t=1795372429,v1={GOOD}")), Err(Wrong::Stale));
    for malformed in [
        "".to_owned(),
        "t=1795372440".to_owned(),
        format!("v1={GOOD}"),
        format!("t=1795372440,v0={GOOD}"),
        format!("t=1795372440;v1={GOOD}"),
    ] {
        assert_eq!(signed(&malformed), Err(Wrong::Malformed), "{malformed}");
    }
    let many = format!("t=1795372440{},v1={GOOD}", format!(",v1={zeros}").repeat(MAX_SIGNATURES));
    assert_eq!(signed(&many), Err(Wrong::Mismatch), "no more than a few are tried");
}

#[test]
fn any_other_hmac_can_be_described() {
    for (more, value) in [
        ("", "c6d811ef3aeb02437cd423f1abe13209041864630bdc4e2c04def5c7b0031a23"),
        (r#","algorithm":"sha1","prefix":"sha1=""#, "sha1=a2282e7648e8caf7d224d6531dcd95c2808a5d89"),
        (
            r#","algorithm":"sha512","encoding":"base64""#,
            "TZSLiacRM+getZIrei7/ZJrcGgaM0pyN2WUJRvDnmXdRH1LgaTNhlBb3C+kbdWjCWKA3pdIs1ksAy8nKsfmBpg==",
        ),
    ] {
        let signature = format!(r#"{{"type":"hmac","header":"X-Signature","secret":"k"{more}}}"#);
        assert_eq!(check(&signature, &[("x-signature", value)], b"body", RECEIVED), Ok(()), "{more}");
        assert_eq!(check(&signature, &[("x-signature", value)], b"bodi", RECEIVED), Err(Wrong::Mismatch));
        assert_eq!(check(&signature, &[("x-signature", "!")], b"body", RECEIVED), Err(Wrong::Malformed));
        assert_eq!(check(&signature, &[], b"body", RECEIVED), Err(Wrong::Missing));
    }
}

#[test]
fn a_signature_that_would_prove_nothing_is_refused() {
    for wrong in [
        r#"{"type":"github","secret":""}"#,
        r#"{"type":"github","secret":"k","old_secret":""}"#,
        r#"{"type":"github"}"#,
        r#"{"type":"github","secret":"k","tolerance":"5m"}"#,
        r#"{"type":"hmac","secret":"k"}"#,
        r#"{"type":"hmac","secret":"k","header":"authorization"}"#,
        r#"{"type":"hmac","secret":"k","header":"x","algorithm":"md5"}"#,
        r#"{"type":"none"}"#,
    ] {
        assert!(serde_json::from_str::<Signature>(wrong).is_err(), "{wrong}");
    }
    let shown = serde_json::from_str::<Signature>(r#"{"type":"github","secret":"hush"}"#).unwrap();
    assert!(!format!("{shown:?}").contains("hush"));
    assert!(same(b"token", b"token") && !same(b"token", b"tokem") && !same(b"", b"token"));
}

//! CI jobs: who gets a session for which scopes, and every token that is not what it says.

use std::sync::atomic::Ordering;

use pcmcache_shared::Digest;
use pcmcache_shared::api::problem::Code;
use ring::hmac;
use serde_json::{Value, json};

use super::issuer::{AUDIENCE, Issuer, KeyPair, jwt, now_s, signed};
use super::team::{Module, Team};
use super::wire::{Reply, Scratch};

/// A server that takes the tokens of this issuer.
pub(crate) async fn team_of(issuer: &Issuer) -> (Team, Scratch) {
    let scratch = Scratch::new();
    let file = scratch.0.join("oidc.toml");
    fs_err::write(&file, issuer.rules()).unwrap();
    let team = Team::with(|config| config.oidc = Some(file)).await;
    (team, scratch)
}

pub(crate) async fn exchange(team: &Team, token: &str) -> Reply {
    team.send("", "POST", "/v1/token", &json!({ "token": token })).await
}

/// The session that the job gets.
pub(crate) async fn session(team: &Team, token: &str) -> Value {
    let reply = exchange(team, token).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    serde_json::from_slice(&reply.body).unwrap()
}

#[tokio::test]
async fn a_job_gets_a_session_for_what_its_rule_says() {
    let issuer = Issuer::start().await;
    let (team, _rules) = team_of(&issuer).await;
    let branch =
        issuer.claims(json!({ "event_name": "push", "ref": "refs/heads/x", "ref_protected": "false" }));
    let of_branch = format!("branch-12-{}", &Digest::of("refs/heads/x").to_string()[..16]);
    for (claims, reads, writes) in [
        (issuer.push(), json!([]), "main"),
        (issuer.pull_request(7), json!(["main"]), "pr-12-7"),
        (branch, json!(["main"]), of_branch.as_str()),
    ] {
        // By either algorithm.
        let mut again = claims.clone();
        again["jti"] = json!("another");
        for token in [issuer.token(&claims), signed(&issuer.p256, "p256", &again)] {
            let session = session(&team, &token).await;
            assert_eq!(
                (&session["reads"], session["writes"].as_str().unwrap()),
                (&reads, writes),
                "{claims}"
            );
            assert_eq!(session["expires_in_s"], 6 * 3600);
            let token = session["token"].as_str().unwrap();
            let who: Value = serde_json::from_slice(&team.get(token, "/v1/token").await.body).unwrap();
            assert!(who["id"].as_str().unwrap().starts_with("s-"), "{who}");
            assert_eq!((&who["writes"], &who["admin"]), (&json!(writes), &json!(false)));
            assert_eq!(
                team.share(token, writes, &Module::new(writes, "bytes")).await.status.as_u16() / 100,
                2
            );
        }
    }
    assert_eq!(issuer.asked.load(Ordering::Relaxed), 1, "its keys are fetched once");
}

#[tokio::test]
async fn every_token_that_is_not_what_it_says_is_refused() {
    let issuer = Issuer::start().await;
    let stranger = Issuer::start().await;
    let (team, _rules) = team_of(&issuer).await;
    let with = |changes: Value| {
        let mut claims = issuer.push();
        for (name, value) in changes.as_object().unwrap() {
            claims[name] = value.clone();
            if value.is_null() {
                claims.as_object_mut().unwrap().remove(name);
            }
        }
        claims
    };
    let token = |changes: Value| issuer.token(&with(changes));
    let (now, push) = (now_s(), issuer.push());
    let headed = |header: Value, sign: &dyn Fn(&[u8]) -> Vec<u8>| jwt(&header, &push, sign);
    // The public key as the secret of a MAC: what a library takes that lets the header choose.
    let public = issuer.rsa.jwk("rsa");
    let as_secret = |secret: &[u8]| {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
        move |message: &[u8]| hmac::sign(&key, message).as_ref().to_vec()
    };
    let good = issuer.token(&issuer.push());
    let (signed_part, signature) = good.rsplit_once('.').unwrap();
    let other_claims = issuer.token(&issuer.pull_request(7));
    let other_signed = other_claims.rsplit_once('.').unwrap().0;

    let forged = [
        ("of an issuer nobody named", stranger.token(&stranger.push())),
        ("that names the right issuer and is of another", stranger.p256_named(&with(json!({})))),
        ("that names another issuer", token(json!({ "iss": stranger.url }))),
        ("whose issuer has a slash more", token(json!({ "iss": format!("{}/", issuer.url) }))),
        ("whose issuer is a list", token(json!({ "iss": [issuer.url] }))),
        ("of no issuer", token(json!({ "iss": null }))),
        ("for another server", token(json!({ "aud": "https://other.example" }))),
        ("for this server and another", token(json!({ "aud": [AUDIENCE, "https://other.example"] }))),
        ("for nobody", token(json!({ "aud": null }))),
        ("that has expired", token(json!({ "exp": now - 61 }))),
        ("that never expires", token(json!({ "exp": null }))),
        ("that expires in words", token(json!({ "exp": "tomorrow" }))),
        ("that is not valid yet", token(json!({ "nbf": now + 120 }))),
        ("that was made in the future", token(json!({ "iat": now + 120, "exp": now + 400 }))),
        ("that is eleven minutes and more old", token(json!({ "iat": now - 661, "exp": now + 400 }))),
        ("that was never made", token(json!({ "iat": null }))),
        ("of an unknown key", signed(&issuer.rsa, "other", &push)),
        ("of no key", headed(json!({ "alg": "RS256" }), &|_| vec![1])),
        ("of the key of the other algorithm", signed(&issuer.rsa, "p256", &push)),
        ("of a key of the same name", signed(&KeyPair::p256(), "p256", &push)),
        ("of no algorithm", headed(json!({ "alg": "none", "kid": "rsa" }), &|_| Vec::new())),
        (
            "of no algorithm, spelled otherwise",
            headed(json!({ "alg": "nOnE", "kid": "rsa" }), &|_| Vec::new()),
        ),
        (
            "with a MAC by the public modulus",
            headed(
                json!({ "alg": "HS256", "kid": "rsa" }),
                &as_secret(public["n"].as_str().unwrap().as_bytes()),
            ),
        ),
        (
            "with a MAC by the whole public key",
            headed(json!({ "alg": "HS256", "kid": "rsa" }), &as_secret(public.to_string().as_bytes())),
        ),
        (
            "of an algorithm nobody asked for",
            headed(json!({ "alg": "PS256", "kid": "rsa" }), &|_| vec![1; 256]),
        ),
        (
            "that brings its own key",
            jwt(
                &json!({ "alg": "ES256", "kid": "mine", "jwk": stranger.p256.jwk("mine"), "jku": stranger.url }),
                &push,
                |message| stranger.p256_sign(message),
            ),
        ),
        (
            "with what must be understood",
            headed(json!({ "alg": "RS256", "kid": "rsa", "crit": ["b64"] }), &|_| vec![1]),
        ),
        ("without a signature", format!("{signed_part}.")),
        ("with half a signature", format!("{signed_part}.{}", &signature[..signature.len() / 2])),
        ("with another's signature", format!("{other_signed}.{signature}")),
        ("of two parts", signed_part.to_owned()),
        ("of four parts", format!("{good}.x")),
        ("that is no JWT", "pcmc_not-a-jwt".to_owned()),
        ("that is nothing", String::new()),
        ("that is a session", "pcms_abc.def.ghi".to_owned()),
        ("that is too long", format!("{good}{}", "A".repeat(20_000))),
        ("of no repository", token(json!({ "repository_id": null }))),
        ("whose repository is no number", token(json!({ "repository_id": "012" }))),
        ("without an event", token(json!({ "event_name": null }))),
    ];
    for (what, token) in forged {
        let reply = exchange(&team, &token).await;
        assert_eq!(reply.code(), Code::Unauthorized, "a token {what}: {reply:?}");
        assert!(
            !String::from_utf8_lossy(&reply.body).contains(&token[token.len().min(20)..])
                || token.len() <= 20
        );
    }
    // Good tokens of jobs that no rule is for, or that may not do this.
    for (what, changes) in [
        ("another repository of the same name", json!({ "repository_id": "13" })),
        (
            "a branch that is named like the protected one",
            json!({ "ref": "refs/heads/main/x", "event_name": "schedule" }),
        ),
        ("an unprotected main", json!({ "ref_protected": "false", "event_name": "schedule" })),
        ("an event nobody named", json!({ "event_name": "workflow_run" })),
        ("a comment", json!({ "event_name": "issue_comment" })),
        // It runs on the protected ref, with its rights, what a stranger wrote.
        ("pull_request_target", json!({ "event_name": "pull_request_target" })),
    ] {
        let reply = exchange(&team, &token(changes)).await;
        assert_eq!(reply.code(), Code::Forbidden, "{what}: {reply:?}");
    }
    // The good one is good, once.
    assert_eq!(exchange(&team, &good).await.status, 200);
    assert_eq!(exchange(&team, &good).await.code(), Code::Unauthorized);
}

#[tokio::test]
async fn of_many_who_show_one_token_one_gets_a_session() {
    let issuer = Issuer::start().await;
    let (team, _rules) = team_of(&issuer).await;
    let token = issuer.token(&issuer.push());
    let all = futures::future::join_all((0..20).map(|_| exchange(&team, &token))).await;
    assert_eq!(all.iter().filter(|reply| reply.status == 200).count(), 1);
    assert!(all.iter().all(|reply| reply.status == 200 || reply.code() == Code::Unauthorized));
}

#[tokio::test]
async fn a_session_is_of_its_server_and_says_what_was_signed() {
    let issuer = Issuer::start().await;
    let (team, _rules) = team_of(&issuer).await;
    let (other, _other_rules) = team_of(&issuer).await;
    let session = session(&team, &issuer.token(&issuer.pull_request(7))).await;
    let token = session["token"].as_str().unwrap();
    let lookup = |scope: &str| format!("/v1/scopes/{scope}/revocations");
    assert_eq!(team.get(token, &lookup("pr-12-7")).await.status, 200);
    assert_eq!(other.get(token, &lookup("pr-12-7")).await.code(), Code::Unauthorized);
    let parts: Vec<_> = token.split('.').collect();
    let edited = {
        use base64::Engine as _;
        let engine = base64::engine::general_purpose::URL_SAFE_NO_PAD;
        let claims = String::from_utf8(engine.decode(parts[1]).unwrap()).unwrap();
        engine.encode(claims.replace("\"writes\":\"pr-12-7\"", "\"writes\":\"main\""))
    };
    assert_ne!(edited, parts[1]);
    for forged in [
        format!("{}.{edited}.{}", parts[0], parts[2]),
        format!("{}.{}.", parts[0], parts[1]),
        parts[0].to_owned(),
    ] {
        assert_eq!(team.get(&forged, &lookup("main")).await.code(), Code::Unauthorized, "{forged}");
    }
}

#[tokio::test]
async fn a_session_and_a_repository_can_be_revoked() {
    let issuer = Issuer::start().await;
    let (team, _rules) = team_of(&issuer).await;
    let reader = team.create("reader", &["--read", "main"]);
    let mut sessions = Vec::new();
    for _ in 0..2 {
        sessions
            .push(session(&team, &issuer.token(&issuer.push())).await["token"].as_str().unwrap().to_owned());
    }
    let modules = [Module::new("one", "bytes one"), Module::new("two", "bytes two")];
    for (token, module) in sessions.iter().zip(&modules) {
        assert_eq!(team.share(token, "main", module).await.status, 201);
    }
    let who: Value = serde_json::from_slice(&team.get(&sessions[0], "/v1/token").await.body).unwrap();
    team.token(&["revoke", who["id"].as_str().unwrap()]);
    assert_eq!(team.get(&sessions[0], &modules[0].path("main")).await.code(), Code::Unauthorized);
    assert_eq!(team.get(&reader, &modules[0].path("main")).await.code(), Code::NoResult);
    assert_eq!(team.get(&sessions[1], &modules[1].path("main")).await.status, 200);
    // All of the repository, and what it would come with next.
    team.token(&["revoke", "--subject", "github:12"]);
    assert_eq!(team.get(&sessions[1], &modules[1].path("main")).await.code(), Code::Unauthorized);
    assert_eq!(team.get(&reader, &modules[1].path("main")).await.code(), Code::NoResult);
    assert_eq!(exchange(&team, &issuer.token(&issuer.push())).await.code(), Code::Unauthorized);
}

#[tokio::test]
async fn an_issuer_that_changes_its_keys_is_asked_again_and_not_by_every_token() {
    let issuer = Issuer::start().await;
    let (team, _rules) = team_of(&issuer).await;
    *issuer.published.lock().unwrap() = json!({ "keys": [] });
    for _ in 0..20 {
        assert_eq!(exchange(&team, &issuer.token(&issuer.push())).await.code(), Code::Unauthorized);
    }
    assert_eq!(issuer.asked.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn an_issuer_that_is_away_or_answers_nonsense_keeps_nobody_else_waiting() {
    let issuer = Issuer::start().await;
    let (team, _rules) = team_of(&issuer).await;
    let token = team.create("ci", &["--write", "main"]);
    *issuer.published.lock().unwrap() = json!({ "keys": "x".repeat(1_000_000) });
    assert_eq!(exchange(&team, &issuer.token(&issuer.push())).await.code(), Code::Unavailable);
    assert_eq!(team.get(&token, "/v1/scopes/main/revocations").await.status, 200);
    assert_eq!(exchange(&team, &issuer.token(&issuer.push())).await.code(), Code::Unavailable);
    assert_eq!(issuer.asked.load(Ordering::Relaxed), 1);
    // Where no CI system is known at all.
    let plain = Team::new().await;
    assert_eq!(exchange(&plain, &issuer.token(&issuer.push())).await.code(), Code::Forbidden);
}

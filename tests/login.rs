//! A CI job logs in by what its CI system says of it, and builds with the session.

use pcmcache_tests::issuer::{AUDIENCE, Issuer, REQUEST_TOKEN};
use pcmcache_tests::{Finished, Machine, Scratch, Server, Unit, Weight, liar, turn};

/// A server that knows a CI system.
struct Team {
    server: Server,
    issuer: Issuer,
    /// Goes last.
    scratch: Scratch,
}

impl Team {
    fn new(name: &str) -> Self {
        let (scratch, issuer) = (Scratch::new(name), Issuer::start());
        let rules = scratch.file("oidc.toml", issuer.rules());
        let server = Server::start_as(&scratch, ["--oidc", rules.to_str().expect("a path")]);
        Self { scratch, issuer, server }
    }

    fn machine(&self, name: &str) -> Machine {
        Machine::new(&self.scratch, name).remote(&self.server.url())
    }

    /// `pcmcache login` with this on its standard input.
    fn login(&self, name: &str, jwt: &str, arguments: &str) -> Finished {
        let machine = self.machine(name).with("JWT", jwt);
        let line = format!("printf '%s\\n' \"$JWT\" | {} login {arguments}", machine.launcher().display());
        machine.start("sh", ["-c", &line]).finish()
    }
}

fn compiled(machine: &Machine, unit: &Unit) -> (u64, u64) {
    let end = machine.compile(unit.arguments()).ok();
    assert_eq!((end.stdout.as_str(), end.stderr.as_str()), ("", ""), "{}", machine.log());
    let stats = machine.stats();
    (stats.compiles, stats.remote_hits)
}

#[test]
fn jobs_build_with_the_session_that_their_ci_system_gets_them() {
    let _turn = turn::beside_others();
    let team = Team::new("login");
    let [unit, other] = ["unit", "other"].map(|name| Unit::write(&team.scratch, name, 7, Weight::Light));

    let push = team.login("push", &team.issuer.push(), "").ok();
    let token = push.stdout.trim();
    assert_eq!(push.stdout, format!("{token}\n"), "the token, alone: {}", push.transcript());
    assert!(push.stderr.contains("writes main"), "{}", push.transcript());
    let builder = team.machine("builder").with("PCMCACHE_TOKEN", token);
    assert_eq!(compiled(&builder, &unit), (1, 0), "{}", builder.log());

    // A pull request is told which scope is its own.
    let file = team.scratch.file("jwt", team.issuer.pull_request(17));
    let asks = team.machine("asks");
    let words = ["login", "--oidc-token-file", file.to_str().expect("a path"), "--env"];
    let pull = asks.start(asks.launcher(), words).finish().ok();
    let variables: Vec<(&str, &str)> = pull.stdout.lines().filter_map(|line| line.split_once('=')).collect();
    let names: Vec<&str> = variables.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ["PCMCACHE_TOKEN", "PCMCACHE_SCOPE"], "{}", pull.transcript());
    assert_eq!(variables[1].1, "pr-12-17");
    let reviewer =
        variables.iter().fold(team.machine("pull"), |machine, (name, value)| machine.with(name, value));
    assert_eq!(compiled(&reviewer, &unit), (0, 1), "it reads main: {}", reviewer.log());
    assert_eq!(compiled(&reviewer, &other), (1, 1), "{}", reviewer.log());
    assert!(reviewer.stats().errors.is_empty(), "{:?}", reviewer.stats());
    let main = team.machine("main").with("PCMCACHE_TOKEN", token);
    assert_eq!(
        compiled(&main, &other),
        (1, 0),
        "what a pull request publishes is not there for main: {}",
        main.log()
    );

    // The session ends within the build: the rest of it is the job's own.
    team.server.token(&["revoke", "--subject", "github:12", "--keep-results"]).ok();
    let late = team.machine("late").with("PCMCACHE_TOKEN", token);
    assert_eq!(compiled(&late, &unit), (1, 0), "{}", late.log());
    assert_eq!(late.stats().errors.keys().map(String::as_str).collect::<Vec<_>>(), ["remote_unauthorized"]);
}

#[test]
fn a_workflow_asks_github_itself_and_its_log_shows_no_token() {
    let _turn = turn::beside_others();
    let team = Team::new("github");
    let job = team
        .machine("job")
        .with("GITHUB_ACTIONS", "true")
        .with("ACTIONS_ID_TOKEN_REQUEST_URL", team.issuer.request_url())
        .with("ACTIONS_ID_TOKEN_REQUEST_TOKEN", REQUEST_TOKEN);
    let login = |machine: &Machine| {
        machine.start(machine.launcher(), ["login", "--github", "--audience", AUDIENCE, "--env"]).finish()
    };
    let end = login(&job).ok();
    let token = end.stdout.lines().find_map(|line| line.strip_prefix("PCMCACHE_TOKEN=")).expect("a token");
    assert_eq!(end.stdout, format!("PCMCACHE_TOKEN={token}\nPCMCACHE_SCOPE=main\n"));
    assert!(end.stderr.starts_with(&format!("::add-mask::{token}\n")), "{}", end.transcript());
    assert_eq!(end.stderr.matches(token).count(), 1, "{}", end.transcript());

    let fork = login(&job.clone().without("ACTIONS_ID_TOKEN_REQUEST_URL"));
    assert_eq!(fork.status.code(), Some(1), "{}", fork.transcript());
    assert!(fork.stderr.contains("id-token: write"), "{}", fork.transcript());
    let wrong = login(&job.clone().with("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "another"));
    assert_eq!((wrong.status.code(), wrong.stdout.as_str()), (Some(1), ""), "{}", wrong.transcript());
}

#[test]
fn who_gets_no_session_is_told_why() {
    let _turn = turn::beside_others();
    let team = Team::new("refused");
    let once = team.issuer.push();
    team.login("first", &once, "").ok();
    let forged = format!("{}x", team.issuer.push());
    let nobody = liar::nobody();
    let cases = [
        ("replayed", team.login("replayed", &once, ""), 3, "exchanged before"),
        ("forged", team.login("forged", &forged, ""), 3, "does not accept"),
        ("stranger", team.login("stranger", &team.issuer.stranger(), ""), 3, "no rule for this job"),
        ("nonsense", team.login("nonsense", "nonsense", ""), 3, "does not accept"),
        ("empty", team.login("empty", "", ""), 1, "stdin holds no token"),
        ("no file", team.login("no-file", "", "--oidc-token-file /nowhere"), 1, "/nowhere"),
        ("half of GitHub", team.login("half", "", "--github"), 2, "--audience"),
    ];
    for (what, end, code, why) in cases {
        assert_eq!(
            (end.status.code(), end.stdout.as_str()),
            (Some(code), ""),
            "{what}: {}",
            end.transcript()
        );
        assert!(end.stderr.contains(why), "{what}: {}", end.transcript());
    }
    let alone = Machine::new(&team.scratch, "alone");
    let nowhere = alone.start(alone.launcher(), ["login"]).finish();
    assert!(nowhere.stderr.contains("PCMCACHE_REMOTE"), "{}", nowhere.transcript());
    let file = team.scratch.file("jwt", team.issuer.push());
    let gone = alone.remote(&nobody);
    let words = ["login", "--oidc-token-file", file.to_str().expect("a path")];
    let gone = gone.start(gone.launcher(), words).finish();
    assert_eq!((gone.status.code(), gone.stdout.as_str()), (Some(1), ""), "{}", gone.transcript());
}

//! Everything that a rollout needs dies at random while rollouts run: they end as the evidence says, one commit per step.
//!
//! `MESH_SEED=7 cargo test --test mesh -- chaos` kills in another order.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use crate::bed::Bed;
use crate::git_servers::http_at;
use crate::load::{Answer, Load, Visitor, expect_no_failure};
use crate::marks;
use crate::pods::Behaviour;
use crate::rig::free_port;
use crate::site::{Manner, NEW, Site, moment};
use crate::support::serin::Serin;

/// Programs that are killed during one rollout, at most. It ends in calm.
const KILLS: usize = 10;
/// Longest time for one rollout, with everything that happens to it: Kubernetes' own controllers, too, take up to half a minute
/// to come back after an API server that died again and again.
const LONGEST: Duration = Duration::from_secs(150);

/// From when on istiod was gone, or the API server that it learns from, and until when Envoy may follow an old step.
type Deaf = (Instant, Instant);

/// How long requests go on once Envoy has heard of everything, and how many of them are looked at, at least.
const AFTERWARDS: u64 = 2_000;
const LEAST: usize = 50;

/// What can die.
const VICTIMS: [&str; 5] = ["serin", "kube-apiserver", "istiod", "prometheus", "git"];

/// A healthy version is promoted, then a bad one is taken back.
pub(crate) async fn everything_dies(bed: Arc<Bed>) {
    let seed = std::env::var("MESH_SEED").ok();
    let seed = seed.map_or(1, |text| text.parse().unwrap());
    let mut dice = Dice(seed);
    println!("chaos: MESH_SEED={seed}");
    let port = free_port();
    let url = format!("http://deploy:s3cr%2Ft%40p@127.0.0.1:{port}/remote.git");
    let manner = Manner {
        url: Some(url),
        ..Manner::default()
    };
    let mut site = Site::with(&bed, "chaos", manner, &|_| Vec::new()).await;
    let mut forge = Forge::start(&site, port);
    let mut serin = Some(site.serin());
    site.serves().await;
    let load = Load::start(&site.target(), 100, vec![Visitor::anybody()]);
    let someone = site.someone("dana");
    let ladder = "[{weight: 10, hold: 3s}, {weight: 60, hold: 3s}, {weight: 100, hold: 3s}]";
    let wish = site.wish().candidate(NEW).ladder(ladder);
    site.commit(&someone, "Propose 6.9.0", &wish);
    let ended = |site: &Site| site.steps().iter().any(|step| step.starts_with("finish"));
    let deaf = rage(&bed, &mut site, &mut forge, &mut serin, &mut dice, ended).await;
    site.promoted(NEW).await;
    let answers = load.stop().await;
    expect_no_failure(&told(&answers, &deaf));
    let expected = [
        "initialize",
        "start podinfod=6.9.0",
        "0% -> 10%",
        "10% -> 60%",
        "60% -> 100%",
        "promote podinfod=6.9.0",
        "return 100% -> 0%",
        "finish podinfod=6.9.0",
    ];
    assert_eq!(site.steps(), expected);

    let load = Load::start(&site.target(), 100, vec![Visitor::anybody()]);
    let failing = Behaviour {
        failing: 0.3,
        ..Behaviour::default()
    };
    bed.pods.behave(&site.namespace, "6.10.0", failing);
    site.commit(&someone, "Propose 6.10.0", &wish.candidate("6.10.0"));
    let ended = |site: &Site| {
        site.steps()
            .iter()
            .filter(|step| step.starts_with("finish"))
            .count()
            == 2
    };
    let deaf = rage(&bed, &mut site, &mut forge, &mut serin, &mut dice, ended).await;
    site.without_candidate().await;
    let answers = told(&load.stop().await, &deaf);
    let others = answers.into_iter().filter(|answer| !answer.is_canary());
    expect_no_failure(&others.collect::<Vec<Answer>>());
    let steps = site.steps();
    assert_eq!(
        steps[expected.len()..],
        [
            "start podinfod=6.10.0",
            "0% -> 10%",
            "roll back 10% -> 0%",
            "finish podinfod=6.10.0",
        ]
    );
}

/// Requests that were sent while Envoy could hear of steps. Otherwise it follows the last step that it knows, to pods
/// that may be gone by now, and nobody can help that.
fn told(answers: &[Answer], deaf: &[Deaf]) -> Vec<Answer> {
    let all = answers.iter().filter(|answer| {
        let sent = answer.sent;
        !deaf
            .iter()
            .any(|(from, until)| sent >= *from && sent < *until)
    });
    let all: Vec<Answer> = all.cloned().collect();
    println!(
        "chaos: {} of {} requests have to succeed",
        all.len(),
        answers.len()
    );
    assert!(all.len() >= LEAST, "hardly any request was looked at");
    all
}

/// Kills and restarts until a rollout has ended; answers with when Envoy could not hear of it.
async fn rage(
    bed: &Arc<Bed>,
    site: &mut Site,
    forge: &mut Forge,
    serin: &mut Option<Serin>,
    dice: &mut Dice,
    ended: impl Fn(&Site) -> bool + Send,
) -> Vec<Deaf> {
    let began = Instant::now();
    let mut deaf = Vec::new();
    for _ in 0..KILLS {
        moment(dice.between(300, 2500)).await;
        if ended(site) {
            break;
        }
        let victim = VICTIMS[usize::try_from(dice.between(0, 4)).unwrap()];
        let pause = dice.between(100, 2500);
        println!(
            "chaos: {:>6.1?}: {victim} is gone for {pause} ms",
            began.elapsed()
        );
        let killed = Instant::now();
        match victim {
            "serin" => drop(serin.take()),
            "git" => forge.kill(),
            program => bed.plane().kill(program),
        }
        moment(pause).await;
        match victim {
            "serin" => *serin = Some(site.serin()),
            "git" => *forge = Forge::start(site, forge.port),
            program => bed.plane().again(program),
        }
        if ["istiod", "kube-apiserver"].contains(&victim) {
            deaf.push(tokio::spawn(hears_again(Arc::clone(bed), killed)));
        }
    }
    // The controller of the endpoints waits twice as long after each failure, up to a quarter of an hour, and Serin waits for
    // it. An administrator starts it again.
    bed.plane().kill("kube-controller-manager");
    bed.plane().again("kube-controller-manager");
    println!("chaos: {:>6.1?}: calm", began.elapsed());
    while !ended(site) {
        assert!(
            began.elapsed() < LONGEST,
            "{:?}\n{}",
            site.steps(),
            bed.plane().log("kube-controller-manager")
        );
        moment(50).await;
    }
    bed.prometheus_ready().await;
    bed.ground.ready().await;
    let mut periods = Vec::new();
    for period in deaf {
        periods.push(period.await.unwrap());
    }
    moment(AFTERWARDS).await;
    periods
}

/// Until when Envoy may not know the newest step, after one that it hears of them from was killed.
async fn hears_again(bed: Arc<Bed>, killed: Instant) -> Deaf {
    static MARKS: AtomicU8 = AtomicU8::new(1);
    let number = MARKS.fetch_add(1, Ordering::Relaxed);
    marks::arrive(&bed, number, LONGEST).await;
    (killed, Instant::now())
}

/// A Git server that can be killed: with its runtime everything of it ends.
struct Forge {
    runtime: Option<tokio::runtime::Runtime>,
    port: u16,
}

impl Forge {
    fn start(site: &Site, port: u16) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let (folder, home) = (site.git.path(""), site.git.home());
        let (sender, receiver) = std::sync::mpsc::channel();
        runtime.spawn(async move {
            http_at(&folder, &home, port).await;
            sender.send(()).unwrap();
        });
        receiver.recv().unwrap();
        Self {
            runtime: Some(runtime),
            port,
        }
    }

    fn kill(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for Forge {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Numbers that look random and are the same each time (SplitMix64).
struct Dice(u64);

impl Dice {
    fn between(&mut self, low: u64, high: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        low + (mixed ^ (mixed >> 31)) % (high - low + 1)
    }
}

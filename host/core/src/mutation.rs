//! Planted mistakes: slips that a programmer could have made, each behind a name. The
//! simulation has to find every one of them (`tests/simulation`, `make mutants`); a checker
//! that finds nothing has not been checked.
//!
//! Without the feature `mutations`, which nothing that ships has, [`active`] is a constant
//! false and the compiler leaves them out.

/// A mistake that can be planted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mutation {
    /// The cooldown counts from the alert's start and not from the last run.
    CooldownFromAlert,
    /// The lock on the target is given up between two rungs of the ladder.
    LockGivenUpBetweenRungs,
    /// A repetition is not looked up, and opens an incident again.
    RepeatsReopen,
    /// A run that goes on after a crash counts no interruption.
    InterruptionsForgotten,
    /// An alert that resolves while its incident waits is not heeded.
    ResolvedWhileWaiting,
    /// One person's approval counts as often as it is given.
    SamePersonTwice,
    /// A sliding window has room for one more than it should.
    WindowHoldsOneMore,
    /// A run counts against the rate when it starts, after others were asked.
    RateCountedLate,
    /// The stop switch is not asked for a run that goes on from its record.
    PauseForgetsSuspended,
    /// A notification that has to wait for room counts as dealt with.
    DoneThoughDeferred,
    /// A timer that fires after its incident has moved on is not set anew.
    TimerDropped,
    /// The windows of effects are empty after a restart.
    EffectsForgottenAtStart,
    /// The breaker closes for good after its first time open.
    BreakerOpensOnce,
    /// Storms are over after a restart.
    StormForgottenAtStart,
    /// What is approved for one rung is approved for all.
    ApprovalForEveryRung,
    /// A plan begins with what the plan before it had.
    PlanKeptAcrossRuns,
    /// A plan can be approved when its time is over.
    ExpiredPlanApproved,
    /// A firing notification that the end of its episode has overtaken is believed.
    LateBelieved,
    /// No incident is given up, however long nobody has heard of its alerts.
    LivesForEver,
    /// A shadow's second attempt acts.
    ShadowActs,
    /// What waits keeps the policy that it opened with.
    PolicyKeptWhileWaiting,
    /// An alert that its policy does not fit goes to nobody.
    MisfitTellsNobody,
    /// What waits under a policy that names nobody is on no record as such.
    UnnamedWaitsUnseen,
    /// A target is taken for what it is called, although it may be called otherwise.
    AliasesBelieved,
    /// Whoever comes first takes all of what is for all.
    NoShares,
}

impl Mutation {
    /// All of them.
    pub const ALL: [Self; 25] = [
        Self::CooldownFromAlert,
        Self::LockGivenUpBetweenRungs,
        Self::RepeatsReopen,
        Self::InterruptionsForgotten,
        Self::ResolvedWhileWaiting,
        Self::SamePersonTwice,
        Self::WindowHoldsOneMore,
        Self::RateCountedLate,
        Self::PauseForgetsSuspended,
        Self::DoneThoughDeferred,
        Self::TimerDropped,
        Self::EffectsForgottenAtStart,
        Self::BreakerOpensOnce,
        Self::StormForgottenAtStart,
        Self::ApprovalForEveryRung,
        Self::PlanKeptAcrossRuns,
        Self::ExpiredPlanApproved,
        Self::LateBelieved,
        Self::LivesForEver,
        Self::ShadowActs,
        Self::PolicyKeptWhileWaiting,
        Self::MisfitTellsNobody,
        Self::UnnamedWaitsUnseen,
        Self::AliasesBelieved,
        Self::NoShares,
    ];
}

#[cfg(feature = "mutations")]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Mutation>> = const { std::cell::Cell::new(None) };
}

/// Plants a mistake in what this thread does from now on, in the place of another; none
/// takes it out.
#[cfg(feature = "mutations")]
pub fn plant(mutation: Option<Mutation>) {
    PLANTED.set(mutation);
}

/// Whether a mistake is planted.
#[cfg(feature = "mutations")]
#[must_use]
pub fn active(mutation: Mutation) -> bool {
    PLANTED.get() == Some(mutation)
}

/// Whether a mistake is planted: never.
#[cfg(not(feature = "mutations"))]
#[must_use]
pub const fn active(_mutation: Mutation) -> bool {
    false
}

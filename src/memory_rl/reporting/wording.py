"""What the report says about each figure and table, in plain words: its heading, and how to read it."""

TITLES = {
    "bits_known": "Bits known, episode by episode",
    "waterfall": "Where the bits go",
    "survival": "Who has not memorised yet",
    "scaling": "Bits per episode against N",
    "absorption": "What an episode teaches, by what is known already",
    "film": "The policy film",
    "rank": "Bits per episode against LoRA rank",
    "capacity": "Bits stored against bits to learn",
    "parameters": "Bits stored against trained parameters",
    "size": "Bits per episode against trained parameters",
    "interference": "What becomes of old secrets while new ones are learned",
}

READING = {
    "bits_known": (
        "Bits known are log2 N + log2 P(S): 0 for a policy that knows nothing of its secret S, log2 N for "
        "one that has memorised it. Each line is the mean over the runs of a condition, and the band around "
        "it its 95 % bootstrap interval. A run that has ended keeps its last value. Where a condition is "
        "alone in its panel, thin lines are its single runs (at most 64).",
        "The horizontal rule is log2 N, all there is to know. The thin dotted line of each colour is its "
        "ceiling: averaged over secrets, no learner of that condition can know more than the Shannon "
        "capacity of its reward times its episodes. The axis is linear up to 10 episodes and logarithmic "
        "beyond.",
    ),
    "waterfall": (
        "Bits per episode on a logarithmic axis, falling from what the reward could carry to what the "
        "policy stores. Each bar is one loss, and its length the factor lost: alphabet (the reward says "
        "less than its levels could, even to the best questioner), exploration (the policy asks what could "
        "be known already), absorption (the algorithm does not store what was delivered).",
        "The right end of the first bar is the channel capacity, log2 of the signals that an episode can "
        "bring. The marks at the left ends are the ideal questioner, the ideal observer of the policy's own "
        "episodes, and the policy; thin rules are 95 % intervals. A gain is a bar that goes the other way. "
        "It is possible because memorised means P(S) >= 0.5, unless a cell says otherwise, and an observer "
        "with two candidates left is already there.",
    ),
    "survival": (
        "The share of runs that have not memorised their secret after so many episodes (Kaplan-Meier, with "
        "pointwise 95 % bands). A curve that falls early is a fast condition; where it crosses one half is "
        "the median. A curve that levels off has runs that had not memorised when their budget was spent.",
        "A cross is where runs were censored: their budget was spent. They count as not memorised so far, "
        "not as failures at that episode, and none is dropped.",
    ),
    "scaling": (
        "Bits per episode are log2 N over the episodes to memorise, with 95 % intervals over runs. Points "
        "and solid lines are the policies; the dashed line of each colour is the ideal questioner of that "
        "reward, which always asks what tells most.",
        "The dotted line is log2 N / N, in closed form: a policy that guesses evenly until its first hit, "
        "and knows S then. It is what a binary reward yields to a learner that ignores its misses. A yes or "
        "no can carry one bit; but a guess among N almost always hears no, which says almost nothing. A "
        "diamond is the closed form of exact softmax policy gradient, where a cell is exactly that.",
    ),
    "absorption": (
        "On the left the policy knows nothing, on the right P(S) is nearly 1. Each point is the bits "
        "absorbed per episode, which is the change of bits known, by the runs of a condition while P(S) lay "
        "in one bin of half a bit, with its 95 % interval over runs. Below 0 the policy forgot. Points far "
        "to the left of 1/N, of runs that have drifted away from their secret, come into view when the "
        "figure is moved.",
        "The solid curve is h(p), the most that a yes or no about S can tell a policy that answers S with "
        "probability p: it peaks at one half, which is why a binary reward teaches so little at first. The "
        "dashed curve is -log2 p, all that is left to know, which an example tells at once. The vertical "
        "axis is linear within 0.01 of 0 and logarithmic beyond.",
    ),
    "film": (
        "Every answer is a row, time runs to the right, and the brightness is the probability of the "
        "answer: on the left to the policy, on the right to an ideal observer of the same answers and "
        "rewards, both of run 0. Where the observer's picture has narrowed to one line and the policy's is "
        "not, the bits were delivered and not absorbed. The dashed rule marks the secret.",
    ),
    "rank": (
        "If the reward is the bottleneck, and not the number of trained parameters, the lines are flat. "
        "Cells joined by a line differ in their rank alone. Intervals are 95 % over runs.",
    ),
    "capacity": (
        "Each run has M secrets, one for each of M prompts, so that there are M log2 N bits to learn. Bits "
        "stored are the bits known at the end of a run, summed over its secrets: mean over runs with its 95 "
        "% bootstrap interval. On the dashed diagonal all is stored.",
        "A size is saturated if it stores less than half of the most that examples showed it. Its capacity "
        "is then the greatest mean, and the diamond on the diagonal is its knee, where the line of perfect "
        "storage meets that plateau, with its interval. Sizes without a diamond have only a lower bound; so "
        "have all that learn from rewards, whose runs get stuck for reasons other than their size. A run "
        "whose budget was too short stores less than it could: the table says how much came in the last "
        "tenth.",
    ),
    "parameters": (
        "Bits stored at the end, as above, against how many parameters a run trains; the colour is the "
        "number of secrets. Diamonds are the capacities of the saturated sizes, with their 95 % intervals.",
        "The dashed lines are what whole language models were found to store: about 2 bits of facts a "
        "parameter (Allen-Zhu and Li, arXiv:2404.05405) and about 3.6 bits of random data (Morris and "
        "others, arXiv:2505.24832). There all weights were trained from scratch; here a few are added to a "
        "frozen model.",
    ),
    "size": (
        "If the reward is the bottleneck, and not the number of trained parameters, the lines are flat. "
        "Bits per episode are the bits that were memorised over the episodes that all runs spent, as "
        "everywhere in this report, with 95 % intervals over runs. All points of a line have the same to "
        "learn.",
        "A triangle is the upper end of the interval of a cell in which no run memorised: too small an "
        "adapter, or too short a budget. It is not a measured rate.",
    ),
    "interference": (
        "Secrets are learned one after the other, each in a block of its own. The curves are the bits known "
        "of a secret, averaged over those of a run; mean over runs with its 95 % bootstrap interval. In the "
        "shaded block the secret itself is taught, after it only others: a curve that stays up keeps what "
        "it learned. Below 0 the secret is less likely to the policy than to a uniform guess.",
        "The average is over the first half of the secrets, at every point of the curve: the later ones "
        "have too few blocks behind them. Secrets of a run may be equal by chance, more often for small N: "
        "teaching one then revives the other.",
    ),
}

RESULTS_READING = (
    "One row for each cell, with 95 % intervals over runs. The last three columns are the factors lost on "
    "the way from capacity to policy. A dash stands for a value that is unknown, such as a median beyond "
    "the budget. The same and more is in cells.csv."
)
CAPACITY_READING = (
    "One row for each condition and size. Capacity is the greatest mean of bits stored over all M; its "
    "interval is a bootstrap over runs in which that M is chosen anew. The knee is the number of secrets "
    "that fill it. Where the size is not saturated, all three are lower bounds."
)
POINT_READING = (
    "One row for each condition, size and number of secrets M. Bits stored are those known at the end of a "
    "run, summed over its secrets. The same is in capacity.csv."
)

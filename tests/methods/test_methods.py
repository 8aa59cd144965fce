"""Contract tests for every registered method; test_method_formulas.py checks the formulas."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from inputs import CODE, refused

from kdsweep import methods
from kdsweep.errors import MethodError, UnknownNameError
from kdsweep.methods import METHODS, Method, Outputs, Param, reference
from kdsweep.methods.stages import attention_map, match_stages

CLASSES, SAMPLES = 5, 40
SIZES = {"student": (8, 4, 2), "teacher": (16, 8, 4, 2)}
CHANNELS = {"student": (3, 4, 6), "teacher": (4, 5, 7, 8)}
WIDTH = {"student": 6, "teacher": 8}

# Which parts of the student a method trains, as published; of a method that is not listed its needs tell.
TRAINS = {
    "none": "",
    **dict.fromkeys(("kd", "mse", "lskd", "dkd", "dist", "nkd", "ctkd", "tfkd"), "logits"),
    **dict.fromkeys(("cosine", "rkd", "pkt", "cc", "srrl", "crd"), "embedding"),
    **dict.fromkeys(("simkd", "hint", "sp"), "last"),
    **dict.fromkeys(("at", "nst", "vid", "reviewkd", "ofd"), "first last"),
}


def trained(name: str) -> set[str]:
    """The parts of the student that a method should reach, beside its adapters."""
    if name in TRAINS:
        return set(TRAINS[name].split())
    maps = {"features": {"first", "last"}, "attention": {"first", "last"}, "stage:-1": {"last"}, "stage:0": {"first"}}
    return set().union(*(maps.get(need, {need}) for need in METHODS[name].teacher_needs({})))


def outputs(who: str, batch: int = 6, seed: int = 0, scale: float = 1.0) -> Outputs:
    """Outputs whose embedding is the pooled last map and whose logits come from the classifier."""
    draw = torch.Generator().manual_seed(seed + 1000 * (who == "teacher"))
    maps = tuple(
        torch.randn(batch, channels, size, size, generator=draw).relu()
        for channels, size in zip(CHANNELS[who], SIZES[who], strict=True)
    )
    embedding = maps[-1].mean((2, 3))
    weight = torch.randn(CLASSES, WIDTH[who], generator=draw)
    bias = torch.randn(CLASSES, generator=draw)
    return Outputs(scale * (embedding @ weight.T + bias), embedding, maps, (weight, bias))


def mapped(given: Outputs, change) -> Outputs:
    features, classifier = (tuple(map(change, parts)) for parts in (given.features, given.classifier))
    return Outputs(change(given.logits), change(given.embedding), features, classifier)


def leaves(given: Outputs) -> Outputs:
    """The same values as leaf tensors that require gradients."""
    return mapped(given, lambda part: part.detach().clone().requires_grad_())


def parts(given: Outputs) -> list[torch.Tensor]:
    return [given.logits, given.embedding, *given.features, *given.classifier]


def labels_of(batch: int = 6) -> torch.Tensor:
    return torch.arange(batch) % CLASSES


def make(name: str, seed: int = 0, **params) -> Method:
    torch.manual_seed(seed)
    method = methods.create(name, outputs("student"), outputs("teacher"), **params)
    method.prepare(SAMPLES)
    return method


def value(method: Method, student: Outputs, teacher: Outputs, labels: torch.Tensor, progress: float = 1.0):
    """The term as training computes it, with a fixed random seed."""
    torch.manual_seed(1)
    method.advance(progress, torch.arange(len(labels)))
    return method(student, teacher, labels)


def gradients(method: Method, student: Outputs) -> dict[str, torch.Tensor | None]:
    return {
        "logits": student.logits.grad,
        "embedding": student.embedding.grad,
        "first": student.features[0].grad,
        "last": student.features[-1].grad,
    }


@pytest.fixture(params=list(METHODS))
def name(request) -> str:
    return request.param


def test_a_method_says_whether_its_term_reads_labels(name):
    student, teacher = outputs("student"), outputs("teacher")
    usual, one_class, none = labels_of(), torch.zeros(6, dtype=torch.long), torch.full((6,), -1)
    first = value(make(name), student, teacher, usual)
    assert torch.equal(first, value(make(name), student, teacher, one_class)) is not METHODS[name].reads_labels
    if not METHODS[name].reads_labels:
        assert torch.equal(first, value(make(name), student, teacher, none))


def test_every_method_is_documented(name):
    cls = METHODS[name]
    assert cls.name == name
    assert cls.__doc__
    assert cls.formula
    assert cls.source
    assert isinstance(cls.params()["weight"], Param)
    for param in cls.params().values():
        assert param.valid.contains(param.default)
        assert param.meaning
        if param.search is not None:
            assert param.search.contains(param.default)
            for end in param.search.written().popitem()[1]:
                assert param.valid.contains(end)


def test_the_term_is_a_float32_scalar(name):
    method = make(name)
    term = value(method, outputs("student"), outputs("teacher"), labels_of())
    assert term.shape == ()
    assert term.dtype == torch.float32
    assert term.isfinite()


def test_the_gradient_reaches_the_used_parts_and_the_adapters_and_not_the_teacher(name):
    method, student = make(name), leaves(outputs("student"))
    teacher = leaves(outputs("teacher"))
    frozen = mapped(teacher, torch.Tensor.detach)
    before = [part.clone() for part in parts(frozen)]
    if name != "none":
        value(method, student, frozen, labels_of()).backward()
    found = {key for key, grad in gradients(method, student).items() if grad is not None and grad.any()}
    assert found == trained(name)
    for grad in gradients(method, student).values():
        assert grad is None or grad.isfinite().all()
    for parameter in method.parameters():
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()
    assert any(p.grad.any() for p in method.parameters()) or not list(method.parameters())
    assert all(torch.equal(a, b) for a, b in zip(before, parts(frozen), strict=True))


@pytest.mark.parametrize("scale", [1.0, 1e3])
def test_value_and_gradient_are_finite_at_the_ends_of_every_search_range(name, scale):
    for key, param in METHODS[name].params().items():
        ends = param.search.written().popitem()[1] if param.search is not None else [param.default]
        for end in ends:
            method = make(name, **{key: end})
            student = leaves(outputs("student", scale=scale))
            term = value(method, student, outputs("teacher", scale=-scale), labels_of())
            assert term.isfinite()
            if name == "none":
                continue
            term.backward()
            for grad in gradients(method, student).values():
                assert grad is None or grad.isfinite().all()


@pytest.mark.parametrize("temperature", [1e-3, 1.0, 1e3])
def test_extreme_temperatures_are_finite_on_saturated_logits(name, temperature):
    param = METHODS[name].params().get("temperature")
    if param is None or not param.valid.contains(temperature):
        return
    method = make(name, temperature=temperature)
    student = leaves(outputs("student", scale=1e3))
    term = value(method, student, outputs("teacher", scale=-1e3), labels_of())
    term.backward()
    assert term.isfinite()
    for grad in gradients(method, student).values():
        assert grad is None or grad.isfinite().all()


def test_half_precision_outputs_give_nearly_the_same_value(name):
    student, teacher = outputs("student"), outputs("teacher")
    full = value(make(name), student, teacher, labels_of())
    half = value(make(name), *(mapped(o, torch.Tensor.bfloat16) for o in (student, teacher)), labels_of())
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, full, rtol=0.05, atol=1e-3)


def test_autocast_does_not_change_the_value(name):
    student, teacher = outputs("student"), outputs("teacher")
    full = value(make(name), student, teacher, labels_of())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(value(make(name), student, teacher, labels_of()), full)


@pytest.mark.parametrize(
    ("batch", "labels"),
    [(1, [2]), (4, [3, 3, 3, 3]), (2, [0, 1])],
    ids=["one sample", "one class", "two samples"],
)
def test_small_and_uniform_batches_are_finite(name, batch, labels):
    method, student = make(name), leaves(outputs("student", batch))
    term = value(method, student, outputs("teacher", batch), torch.tensor(labels))
    assert term.isfinite()
    if name == "none":
        return
    term.backward()
    for grad in gradients(method, student).values():
        assert grad is None or grad.isfinite().all()


@pytest.mark.parametrize("level", [0.0, 1.0])
def test_outputs_without_variation_are_finite(name, level):
    """A collapsed student has dead maps, identical rows and constant logits."""
    method = make(name)
    student = leaves(mapped(outputs("student"), lambda part: torch.full_like(part, level)))
    term = value(method, student, outputs("teacher"), labels_of())
    assert term.isfinite()
    if name == "none":
        return
    term.backward()
    for grad in gradients(method, student).values():
        assert grad is None or grad.isfinite().all()


def test_the_state_carries_over_to_a_new_instance(name):
    method, student, teacher = make(name), outputs("student"), outputs("teacher")
    value(method, student, teacher, labels_of(), 0.05)
    state = {key: tensor.clone() for key, tensor in method.state_dict().items()}
    expected = value(method, student, teacher, labels_of(), 0.1)
    other = make(name, seed=7)
    other.load_state_dict(state)
    assert torch.equal(value(other, student, teacher, labels_of(), 0.1), expected)


def test_the_declared_needs_suffice(name):
    needs = METHODS[name].teacher_needs({})
    teacher, empty = outputs("teacher"), torch.empty(0)
    stages = {int(need.removeprefix("stage:")) % 4 for need in needs if need.startswith("stage:")}
    shown = range(4) if "features" in needs else stages
    features = tuple(f if i in shown else empty for i, f in enumerate(teacher.features))
    if "attention" in needs:
        features = tuple(map(attention_map, teacher.features))
    restricted = Outputs(
        teacher.logits if "logits" in needs else empty,
        teacher.embedding if "embedding" in needs else empty,
        features,
    )
    student = outputs("student")
    full = value(make(name), student, teacher, labels_of())
    torch.testing.assert_close(value(make(name), student, restricted, labels_of()), full)


def odd_pairs() -> dict[str, tuple[Outputs, Outputs]]:
    """Students and teachers of which some method can make nothing."""
    student, teacher = outputs("student"), outputs("teacher")
    tokens = (torch.rand(6, 10, 4),)
    flat = teacher.features[-1].flatten(1)
    wide = (torch.rand(CLASSES, flat.shape[1]), teacher.classifier[1])
    return {
        "ordinary": (student, teacher),
        "a student without maps": (student._replace(features=()), teacher),
        "a teacher without maps": (student, teacher._replace(features=())),
        "a teacher of tokens": (student, teacher._replace(features=tokens)),
        "a student of tokens": (student._replace(features=tokens), teacher),
        "a teacher without a linear layer": (student, teacher._replace(classifier=())),
        "a teacher that flattens": (student, teacher._replace(embedding=flat, classifier=wide)),
        "a teacher with a hidden layer": (
            student, teacher._replace(embedding=torch.rand(6, 7), classifier=(torch.rand(CLASSES, 7), wide[1]))
        ),
    }  # fmt: skip


@pytest.mark.parametrize("pair", odd_pairs())
def test_shapes_alone_tell_what_create_refuses(name, pair):
    student, teacher = odd_pairs()[pair]
    told = []
    for attempt in (
        lambda: methods.create(name, student, teacher),
        lambda: methods.fit(name, student.shapes(), teacher.shapes()),
    ):
        try:
            attempt()
        except MethodError as error:
            told.append(str(error))
        else:
            told.append("")
    assert told[0] == told[1]


def test_a_sum_and_a_users_class_fit_if_they_can_be_created():
    student, teacher = outputs("student").shapes(), outputs("teacher").shapes()
    methods.fit("kd+hint", student, teacher, **{"hint.stage": 1})
    methods.fit(f"kd+{__name__}:Picky", student, teacher)
    with refused(CODE, MethodError, match=r"stage 3 of the student, which has \[6, 3, 8, 8\]"):
        methods.fit("kd+hint", student, teacher, **{"hint.stage": 3})
    with refused(CODE, MethodError, match="wants a student of 6"):
        methods.fit(f"kd+{__name__}:Picky", teacher, teacher)
    with refused(CODE, MethodError, match="no parameter 'wieght'"):
        methods.fit("kd", student, teacher, wieght=1)


def test_a_parameter_out_of_range_says_what_is_accepted(name):
    with refused(CODE, MethodError, match=r"weight is -1; accepted: "):
        make(name, weight=-1)
    with refused(CODE, MethodError, match=f"method {name} has no parameter 'wieght'; did you mean 'weight'"):
        make(name, wieght=1)


@pytest.mark.parametrize("name", ["kd", "mse", "lskd", "dkd", "dist", "ctkd"])
def test_logit_methods_are_zero_when_student_equals_teacher(name):
    teacher = outputs("teacher")
    term = value(make(name), teacher, teacher, labels_of())
    torch.testing.assert_close(term, torch.zeros(()), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["cosine", "rkd", "pkt", "at", "sp", "nst"])
def test_feature_methods_are_zero_when_student_equals_teacher(name):
    teacher = outputs("teacher")
    method = methods.create(name, teacher, teacher)
    torch.testing.assert_close(method(teacher, teacher, labels_of()), torch.zeros(()), atol=1e-6, rtol=0)


def test_listing_methods_does_not_load_torch():
    code = (
        "import sys; from kdsweep import methods; from kdsweep.methods import reference; "
        "assert len(list(methods.METHODS)) > 5; assert reference.table(); "
        "assert 'torch' not in sys.modules and 'optuna' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_sum_weighs_its_terms():
    student, teacher, labels = outputs("student"), outputs("teacher"), labels_of()
    total = make("kd+at", **{"temperature": 2.0, "at.weight": 10.0, "kd.weight": 3.0})
    expected = 3 * make("kd", temperature=2.0)(student, teacher, labels)
    expected = expected + 10 * make("at")(student, teacher, labels)
    torch.testing.assert_close(total(student, teacher, labels), expected)
    assert total.weight == 1


def test_in_a_sum_the_dotted_parameter_overrides_the_bare_one_in_any_order():
    for params in ({"temperature": 2.0, "kd.temperature": 8.0}, {"kd.temperature": 8.0, "temperature": 2.0}):
        total = make("kd+dkd", **params)
        assert [total.parts[part].temperature for part in ("kd", "dkd")] == [8.0, 2.0]


def test_a_sum_lists_the_parameters_it_accepts():
    message = r"no parameter 'at.wieght'; did you mean 'at.weight'\? accepted: .*kd.weight"
    with refused(CODE, MethodError, match=message):
        make("kd+at", **{"at.wieght": 1.0})
    with refused(CODE, MethodError, match=r"invalid sum 'kd\+kd'"):
        make("kd+kd")


def test_hint_needs_the_stage_that_it_is_given():
    assert METHODS["hint"].teacher_needs({"stage": 1}) == {"stage:1"}


def test_a_sum_forwards_progress_to_its_terms():
    total = make("kd+dkd", weight=1.0)
    student, teacher, labels = outputs("student"), outputs("teacher"), labels_of()
    plain = make("kd")(student, teacher, labels)
    assert torch.equal(value(total, student, teacher, labels, progress=0.0), plain)
    assert value(total, student, teacher, labels, progress=0.5) > plain


class Halved(Method):
    """Half the squared difference of the first logit."""

    name = "halved"

    def term(self, student, teacher, labels):
        return (student.logits[:, 0] - teacher.logits[:, 0]).square().mean() / 2


class Picky(Method):
    """Refuses in `build`, as a class may that knows nothing of `check`."""

    def build(self, student, teacher):
        if student.embedding.shape[1] != 6:
            raise MethodError("wants a student of 6")
        return super().build(student, teacher)


def test_a_users_class_is_a_method():
    student, teacher = outputs("student"), outputs("teacher")
    expected = (student.logits[:, 0] - teacher.logits[:, 0]).square().mean() / 2
    assert torch.equal(make(f"{__name__}:Halved")(student, teacher, labels_of()), expected)
    total = make(f"kd+{__name__}:Halved", **{f"{__name__}:Halved.weight": 2.0, "kd.weight": 0.0})
    torch.testing.assert_close(total(student, teacher, labels_of()), 2 * expected)
    with refused(CODE, UnknownNameError, match=r"accepted: a subclass of kdsweep\.methods\.Method"):
        make(f"{__name__}:outputs")
    with refused(CODE, UnknownNameError, match="has no 'Absent'"):
        make(f"{__name__}:Absent")


def test_stages_are_paired_by_resolution_from_shallow_to_deep():
    def maps(*sizes):
        return [torch.empty(1, 2, size, size) for size in sizes]

    assert match_stages(maps(16, 8, 4), maps(32, 16, 8, 4)) == [(0, 1), (1, 2), (2, 3)]
    assert match_stages(maps(32, 16, 8, 4), maps(16, 8, 4)) == [(1, 0), (2, 1), (3, 2)]
    assert match_stages(maps(16, 8), maps(28, 14, 7)) == [(0, 1), (1, 2)]
    assert match_stages(maps(8, 4, 4), maps(8, 4)) == [(0, 0), (2, 1)]
    assert match_stages([torch.empty(1, 10, 4), *maps(8)], maps(8)) == [(1, 0)]


@pytest.mark.parametrize("name", ["at", "hint"])
def test_a_model_without_stage_maps_is_refused_with_both_shapes(name):
    bare = outputs("student")._replace(features=())
    with refused(CODE, MethodError, match=r"student.* has no stages.*accepted: "):
        methods.create(name, bare, outputs("teacher"))
    tokens = outputs("teacher")._replace(features=(torch.empty(2, 10, 4),))
    with refused(CODE, MethodError, match=r"\[2, 10, 4\]"):
        methods.create(name, outputs("student"), tokens)


def test_attention_maps_give_the_same_loss_as_stage_maps():
    stage = outputs("teacher").features[0]
    reduced = attention_map(stage)
    assert reduced.shape == (6, 1, 16, 16)
    torch.testing.assert_close(reduced.square().mean(1), stage.square().mean(1))


def test_cosine_pools_a_teacher_whose_width_is_a_multiple_of_the_students():
    teacher = outputs("teacher")
    student = outputs("student")._replace(embedding=teacher.embedding.reshape(6, 4, 2).mean(2))
    method = methods.create("cosine", student, teacher)
    assert list(method.parameters()) == []
    torch.testing.assert_close(method(student, teacher, labels_of()), torch.zeros(()), atol=1e-6, rtol=0)


def test_dkd_warms_up_over_its_fraction_and_has_full_weight_without_advance():
    student, teacher = outputs("student"), outputs("teacher")
    full = make("dkd")(student, teacher, labels_of())
    for progress, share in ((0.0, 0.0), (0.05, 0.25), (0.2, 1.0), (0.9, 1.0)):
        found = value(make("dkd", warmup_fraction=0.2), student, teacher, labels_of(), progress)
        torch.testing.assert_close(found, full * share)
    assert torch.equal(value(make("dkd", warmup_fraction=0.0), student, teacher, labels_of(), 0.0), full)


def test_hint_bridges_the_sizes_of_the_chosen_stages():
    student, teacher = outputs("student"), outputs("teacher")
    method = methods.create("hint", student, teacher, stage=1, kernel_size=1)
    (weight, bias) = method.parameters()
    assert weight.shape == (5, 4, 1, 1)
    regressed = torch.einsum("oi,bihw->bohw", weight[:, :, 0, 0], student.features[1]) + bias[:, None, None]
    target = teacher.features[1].reshape(6, 5, 4, 2, 4, 2).mean((3, 5))
    torch.testing.assert_close(method(student, teacher, labels_of()), (regressed - target).square().mean())
    with refused(CODE, MethodError, match=r"stage 3 of the student, which has \[6, 3, 8, 8\]"):
        methods.create("hint", student, teacher, stage=3)


@pytest.mark.parametrize(("progress", "factor"), [(0.0, 0.0), (0.1, -0.5), (0.2, -1.0), (0.9, -1.0)])
def test_ctkd_trains_its_temperature_against_the_student(progress, factor):
    student, teacher = outputs("student"), outputs("teacher")
    method = make("ctkd", reversal_fraction=0.2)
    (theta,) = method.parameters()
    step = 0.1
    with torch.no_grad():
        around = []
        for shift in (step, -2 * step, step):
            theta += shift
            around.append(value(method, student, teacher, labels_of()).item())
    slope = (around[0] - around[1]) / (2 * step)
    value(method, student, teacher, labels_of(), progress).backward()
    assert theta.grad.item() == pytest.approx(factor * slope, rel=1e-2, abs=1e-6)
    assert abs(slope) > 1e-3


def test_reviewkd_warms_up_over_its_fraction():
    student, teacher = outputs("student"), outputs("teacher")
    full = value(make("reviewkd"), student, teacher, labels_of())
    for progress, share in ((0.0, 0.0), (0.02, 0.25), (0.08, 1.0)):
        torch.testing.assert_close(value(make("reviewkd"), student, teacher, labels_of(), progress), full * share)


def test_ofd_ignores_positions_where_the_student_is_below_an_inactive_teacher():
    student, teacher = outputs("student"), outputs("teacher")
    method = make("ofd")
    with torch.no_grad():
        for parameter in method.parameters():
            parameter.zero_()
        for connector in method.adapters:
            connector[1].bias.fill_(-1.0)
    expected = 0.0
    for depth, (i, j) in enumerate([(2, 3), (1, 2), (0, 1)]):
        assert student.features[i].shape[2:] == teacher.features[j].shape[2:]
        active = teacher.features[j][teacher.features[j] > 0]
        expected += (active + 1).square().sum() / 6 / 2**depth
    torch.testing.assert_close(method(student, teacher, labels_of()), expected)


def test_crd_remembers_the_batch_and_leaves_out_its_classes():
    student, teacher = outputs("student"), outputs("teacher")
    method = make("crd", momentum=0.25, dim=8)
    before = {key: tensor.clone() for key, tensor in method.state_dict().items()}
    index, labels = torch.tensor([30, 4, 11, 0, 7, 9]), torch.tensor([0, 1, 2, 3, 4, 4])
    method.advance(0.0, index)
    method(student, teacher, labels)
    after = method.state_dict()
    embedded = student.embedding @ before["student.weight"].T + before["student.bias"]
    mixed = 0.25 * before["student.memory"][index] + 0.75 * embedded / embedded.norm(dim=1, keepdim=True)
    torch.testing.assert_close(after["student.memory"][index], mixed / mixed.norm(dim=1, keepdim=True))
    others = [i for i in range(SAMPLES) if i not in index.tolist()]
    assert torch.equal(after["student.memory"][others], before["student.memory"][others])
    assert after["classes"][index].tolist() == labels.tolist()
    assert after["classes"][others].eq(-1).all()
    assert after["student.log_normaliser"].isfinite()


def test_crd_is_zero_without_negatives_of_another_class():
    method = make("crd", dim=8)
    method.adapters.classes.fill_(2)
    student = leaves(outputs("student"))
    method.advance(0.5, torch.arange(6))
    term = method(student, outputs("teacher"), torch.full((6,), 2))
    term.backward()
    assert term.item() == 0
    assert student.embedding.grad.isfinite().all()


def test_crd_keeps_the_normalisers_of_its_first_batch():
    method = make("crd", dim=8)
    seen = []
    for seed in (0, 1):
        value(method, outputs("student", seed=seed), outputs("teacher", seed=seed), labels_of())
        seen.append(method.state_dict()["teacher.log_normaliser"].item())
    assert seen[0] == seen[1]


def test_crd_without_prepare_and_advance_raises():
    method = methods.create("crd", outputs("student"), outputs("teacher"))
    with refused(CODE, MethodError, match=r"call prepare\(\) once and advance\(\) before each step; it knows 0"):
        method(outputs("student"), outputs("teacher"), labels_of())
    method.prepare(SAMPLES)
    with refused(CODE, MethodError, match="0 sample indices for a batch of 6"):
        method(outputs("student"), outputs("teacher"), labels_of())


def test_the_teachers_classifier_is_kept_and_not_trained():
    teacher = outputs("teacher")
    for name in ("srrl", "simkd"):
        method = make(name)
        assert torch.equal(method.state_dict()["classifier.weight"], teacher.classifier[0])
        assert torch.equal(method.state_dict()["classifier.bias"], teacher.classifier[1])
        trained = sum(p.numel() for p in method.parameters())
        assert sum(p.numel() for p in method.adapters.parameters()) == trained + 8 * CLASSES + CLASSES
        with refused(CODE, MethodError, match="needs a teacher that ends in a linear layer"):
            methods.create(name, outputs("student"), teacher._replace(classifier=()))


def test_simkd_infers_with_the_teachers_classifier():
    student, teacher = outputs("student"), outputs("teacher")
    head = make("simkd").inference_head().eval()
    logits = head(student.features[-1])
    weight, bias = teacher.classifier
    imitation = head.transferred(student.features[-1])
    assert imitation.shape == teacher.features[-1].shape
    torch.testing.assert_close(logits, imitation.mean((2, 3)) @ weight.T + bias)
    rebuilt = methods.head(head.options).eval()
    rebuilt.load_state_dict(head.state_dict())
    assert torch.equal(rebuilt(student.features[-1]), logits)
    assert make("kd").inference_head() is None
    assert make("kd+at").inference_head() is None
    total = make("kd+simkd")
    assert total.inference_head() is total.parts["simkd"].inference_head()


def test_simkd_takes_a_classifier_that_reads_the_flattened_map_and_refuses_another():
    student, teacher = outputs("student"), outputs("teacher")
    maps, weight = teacher.features[-1], torch.randn(CLASSES, 32)
    flat = teacher._replace(embedding=maps.flatten(1), classifier=(weight, teacher.classifier[1]))
    head = methods.create("simkd", student, flat).inference_head().eval()
    imitation = head.transferred(student.features[-1]).flatten(1)
    torch.testing.assert_close(head(student.features[-1]), imitation @ weight.T + teacher.classifier[1])
    small = student._replace(features=(student.features[0], torch.rand(6, 6, 1, 1)))
    for wrong in (flat, teacher._replace(embedding=teacher.embedding + 1)):
        with refused(CODE, MethodError, match=r"last map \[6, 8, 2, 2\].* reads other values of shape"):
            methods.create("simkd", small, wrong)


def test_the_reference_matches_the_declarations():
    table = {row["name"]: row for row in reference.table()}
    assert set(table) == set(METHODS)
    assert table["dkd"]["needs"] == ["logits"]
    assert table["hint"]["needs"] == ["stage:-1"]
    params = {param["name"]: param for param in table["kd"]["params"]}
    assert params["temperature"]["search"] == {"loguniform": [1, 16]}
    assert params["temperature"]["default"] == 4
    assert params["weight"]["search"] is None
    assert reference.describe(f"{__name__}:Halved")["summary"] == "Half the squared difference of the first logit."


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
def test_a_step_on_a_gpu_does_not_wait_for_it(name):
    method = make(name).to(torch.device("cuda"))
    student, teacher = (mapped(outputs(who), lambda part: part.cuda().bfloat16()) for who in ("student", "teacher"))
    labels, index = labels_of().cuda(), torch.arange(6).cuda()
    student = leaves(student)
    expected = value(make(name), outputs("student"), outputs("teacher"), labels_of())
    for _ in range(2):  # the first call may load kernels
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            method.advance(1.0, index)
            term = method(student, teacher, labels)
            if name != "none":
                term.backward()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    if name != "crd":  # its random draws differ between devices
        torch.testing.assert_close(term.detach().cpu(), expected.detach(), rtol=0.1, atol=1e-2)

"""A report of a guest that wants to run something in the browser of whoever reads it."""

from pipeline.report.evidence import Change, Evidence, Finding, Image, Layer, Leak, Previous, Result, Stage, Status
from tests.report.evidence_examples import FULL, NASTY, START

ATTACKS = (
    "<script>document.title='owned'</script>",
    "<img src=x onerror=\"document.title='owned'\">",
    "\"><svg onload=document.title='owned'>",
    "</style></title></pre><iframe src=javascript:document.title='owned'></iframe>",
    "{{ ''.__class__ }}{% include '/etc/passwd' %}",
    "javascript:document.title='owned'",
    NASTY,
)
ALL = " ".join(ATTACKS)

HOSTILE = Evidence(
    build_id=ALL,
    spec_name=ALL,
    spec_digest=ALL,
    region=ALL,
    started=START,
    finished=FULL.finished,
    base_image=FULL.base_image and FULL.base_image.model_copy(update={"name": ALL, "owner_id": ALL}),
    image=Image(image_id=ALL, name=ALL, region=ALL, snapshot_ids=(ALL,)),
    stages=(Stage(name=ALL, started=START, seconds=3, status=Status.FAIL, detail=ALL + "\n" * 9 + ALL),),
    results=tuple(
        Result(controls=("H01", attack), layer=Layer.LIVE, status=Status.FAIL, title=attack, source=attack, detail=ALL)
        for attack in ATTACKS
    ),
    findings=tuple(
        Finding(control=attack, layer=Layer.RAW, kind=attack, place=attack, fingerprint=attack, detail=attack)
        for attack in ATTACKS
    ),
    block_digests={ALL: ALL},
    resources=tuple(one.model_copy(update={"identity": ALL, "kind": ALL}) for one in FULL.resources),
    leaks=(Leak(kind=ALL, identity=ALL, region=ALL, reason=ALL),),
    previous=Previous(
        build_id=ALL,
        image_id=ALL,
        finished=START,
        changes={ALL: (Change(name=ALL, before=ALL, after=ALL),), f"more {ALL}": ()},
    ),
    error=ALL,
    exit_status=40,
)

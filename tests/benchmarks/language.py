"""How well the embedded recogniser tells English from other speech: sentences that espeak-ng speaks, and real clips.

    python -m tests.benchmarks.language                             # the table
    python -m tests.benchmarks.language --fit                       # the weights of pipelines/stages/language.py
    python -m tests.benchmarks.language --real a.mp4=en b.mp4=zh    # with real clips of known language

Weights are fitted on the first sentences of every language, and the table is of the others; real clips only test.
"""

import argparse
import random
import subprocess

import numpy as np

from models.signals import AUDIO_RATE
from pipelines.stages import language
from pipelines.stages.transcribe import _PHONES, _WORDS, _heard, english_evidence
from pipelines.stages.voice import FEMALE_VARIANTS, MALE_VARIANTS, Voice, speak
from pipelines.stages.voice_activity import speech_activity

# Everyday sentences, written for this table; the key is espeak-ng's voice.
SENTENCES = {
    "en": (
        "The morning train was late again so I walked along the river to the office.",
        "My grandmother kept a small garden behind the house where she grew tomatoes and beans.",
        "We should think about what people need before we decide how the new building will look.",
        "He told me that the best ideas come when you are not looking for them at all.",
        "If the weather stays fine we will take the children to the mountains on Sunday.",
        "Nobody in the room understood why the old man laughed when he heard the news.",
    ),
    "cmn": (
        "今天早上的火车又晚点了，所以我沿着河边走到办公室。",
        "我奶奶在房子后面有一个小花园，她在那里种西红柿和豆子。",
        "我们应该先想一想人们需要什么，再决定新楼的样子。",
        "如果天气好，星期天我们会带孩子们去山里玩。",
    ),
    "de": (
        "Der Zug am Morgen hatte wieder Verspätung, also ging ich am Fluss entlang ins Büro.",
        "Meine Großmutter hatte hinter dem Haus einen kleinen Garten mit Tomaten und Bohnen.",
        "Wir sollten überlegen, was die Leute brauchen, bevor wir das neue Haus planen.",
        "Wenn das Wetter schön bleibt, fahren wir am Sonntag mit den Kindern in die Berge.",
    ),
    "fr": (
        "Le train du matin était encore en retard, alors j'ai marché le long de la rivière.",
        "Ma grand-mère avait un petit jardin derrière la maison où elle cultivait des tomates.",
        "Il faut penser à ce dont les gens ont besoin avant de choisir la forme du bâtiment.",
        "S'il fait beau dimanche, nous emmènerons les enfants à la montagne.",
    ),
    "es": (
        "El tren de la mañana llegó tarde otra vez, así que caminé junto al río hasta la oficina.",
        "Mi abuela tenía un pequeño jardín detrás de la casa donde cultivaba tomates y judías.",
        "Debemos pensar en lo que la gente necesita antes de decidir cómo será el edificio.",
        "Si hace buen tiempo, el domingo llevaremos a los niños a la montaña.",
    ),
    "it": (
        "Il treno del mattino era di nuovo in ritardo, così ho camminato lungo il fiume.",
        "Mia nonna aveva un piccolo giardino dietro la casa dove coltivava pomodori e fagioli.",
        "Se il tempo resta bello, domenica porteremo i bambini in montagna.",
    ),
    "pt-br": (
        "O trem da manhã atrasou de novo, então caminhei ao longo do rio até o escritório.",
        "Minha avó tinha um pequeno jardim atrás da casa onde plantava tomates e feijões.",
        "Se o tempo continuar bom, no domingo levaremos as crianças para a montanha.",
    ),
    "ru": (
        "Утренний поезд снова опоздал, и я пошёл вдоль реки до самой работы.",
        "У моей бабушки был маленький сад за домом, где росли помидоры и фасоль.",
        "Если погода будет хорошей, в воскресенье мы поедем с детьми в горы.",
    ),
    "pl": (
        "Poranny pociąg znowu się spóźnił, więc poszedłem wzdłuż rzeki do biura.",
        "Moja babcia miała za domem mały ogród, w którym rosły pomidory i fasola.",
        "Jeśli pogoda dopisze, w niedzielę zabierzemy dzieci w góry.",
    ),
    "tr": (
        "Sabah treni yine geç kaldı, ben de nehir boyunca ofise kadar yürüdüm.",
        "Büyükannemin evin arkasında domates ve fasulye yetiştirdiği küçük bir bahçesi vardı.",
        "Hava güzel olursa pazar günü çocukları dağlara götüreceğiz.",
    ),
    "hi": (
        "सुबह की ट्रेन फिर से देर से आई, इसलिए मैं नदी के किनारे चलकर दफ़्तर गया।",
        "मेरी दादी के घर के पीछे एक छोटा बगीचा था जहाँ वह टमाटर उगाती थीं।",
        "अगर मौसम अच्छा रहा तो रविवार को हम बच्चों को पहाड़ों पर ले जाएँगे।",
    ),
    "nl": (
        "De ochtendtrein was weer te laat, dus liep ik langs de rivier naar kantoor.",
        "Mijn grootmoeder had achter het huis een kleine tuin met tomaten en bonen.",
        "Als het weer mooi blijft, nemen we de kinderen zondag mee naar de bergen.",
    ),
}
ENGLISH_VOICES = ("en-us", "en", "en-gb-x-rp", "en-gb-scotland")


def rendered(seed: int = 0, fit: bool = True, per_language: int = 2):
    """Yields (name, is English, audio) of sentences: of the half to fit on, or of the other half."""
    rng, variants = random.Random(seed), [*FEMALE_VARIANTS, *MALE_VARIANTS]
    for code, sentences in SENTENCES.items():
        half = sentences[: len(sentences) // 2] if fit else sentences[len(sentences) // 2 :]
        voices = ENGLISH_VOICES if code == "en" else (code,)
        pairs = [(sentence, voice) for sentence in half for voice in voices]
        for sentence, accent in pairs if code == "en" else pairs[:per_language]:
            voice = Voice(accent, rng.choice(variants), rng.randint(130, 180), rng.randint(30, 65), 50)
            yield f"{accent} {sentence[:24]}", code == "en", spoken(sentence, voice, rng.randint(0, 1 << 30))


def spoken(sentence: str, voice: Voice, seed: int) -> np.ndarray:
    """A sentence with a little noise: int16 at 16 kHz."""
    from scipy.signal import resample_poly

    speech = speak(sentence, voice)
    sound = resample_poly(speech.audio.astype(float), AUDIO_RATE, speech.rate)
    sound = sound / np.abs(sound).max() * 8000 + np.random.default_rng(seed).normal(0, 20, len(sound))
    return np.clip(sound, -32768, 32767).astype(np.int16)


def real(pairs: list[str], seconds: float = 9.0):
    """Yields the same of PATH=LANGUAGE."""
    import imageio_ffmpeg

    for pair in pairs:
        path, _, code = pair.rpartition("=")
        command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-nostdin", "-i", path, "-t", str(seconds)]
        command += ["-vn", "-ac", "1", "-ar", str(AUDIO_RATE), "-f", "s16le", "-"]
        sound = subprocess.run(command, capture_output=True, check=True).stdout
        yield f"{code} {path.rsplit('/', 1)[-1]}", code == "en", np.frombuffer(sound, np.int16)


def evidence_of(audio: np.ndarray) -> language.EnglishEvidence | None:
    words = [segment for segment in _heard(audio, _WORDS) if segment.word[0] not in "<[+"]
    return english_evidence(words, _heard(audio, _PHONES), speech_activity(audio))


def fitted(found: list[tuple[bool, language.EnglishEvidence]], decay: float = 0.05) -> np.ndarray:
    """Logistic regression by Newton's method, both languages weighing the same: (bias, posterior, agreement, fit)."""
    features = np.array([[1.0, item.posterior, item.agreement, item.fit] for _, item in found])
    target = np.array([float(english) for english, _ in found])
    share = np.where(target == 1, 0.5 / target.mean(), 0.5 / (1 - target.mean()))
    middle, scale = np.array([0.0, *features[:, 1:].mean(0)]), np.array([1.0, *features[:, 1:].std(0)])
    scaled, weights = (features - middle) / scale, np.zeros(4)
    penalty = decay * len(found) * np.diag([0.0, 1.0, 1.0, 1.0])
    for _ in range(50):
        guess = 1 / (1 + np.exp(-scaled @ weights))
        slope = scaled.T @ (share * (guess - target)) + penalty @ weights
        curve = (scaled * (share * guess * (1 - guess))[:, None]).T @ scaled + penalty
        weights = weights - np.linalg.solve(curve, slope)
    weights = weights / scale
    return weights - [weights @ middle, 0, 0, 0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fit", action="store_true", help="fit the weights anew and print them")
    parser.add_argument("--real", nargs="*", default=[], metavar="PATH=LANGUAGE")
    args = parser.parse_args()
    if args.fit:
        found = [(english, evidence_of(audio)) for _, english, audio in rendered()]
        weights = fitted([(english, item) for english, item in found if item is not None])
        print("weights", [round(float(value), 3) for value in weights])
        return
    rows: dict[tuple[str, str], int] = {}
    for kind, clips in (("rendered", rendered(seed=1, fit=False)), ("real", real(args.real))):
        for name, english, audio in clips:
            item = evidence_of(audio)
            code, sure = language.spoken_language(item)
            print(f"{kind:9} {name:36} {item} -> {code} {sure}", flush=True)
            place = kind, "English" if english else "other"
            verdict = {"en": "en", language.NOT_ENGLISH: "not-en"}.get(code, "und")
            rows[(*place, verdict)] = rows.get((*place, verdict), 0) + 1
    print("\n| clips | speech | en | not-en | und |\n|---|---|---|---|---|")
    for kind, speech in sorted({key[:2] for key in rows}):
        counts = [str(rows.get((kind, speech, verdict), 0)) for verdict in ("en", "not-en", "und")]
        print(f"| {kind} | {speech} | {' | '.join(counts)} |")


if __name__ == "__main__":
    main()

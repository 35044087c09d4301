"""Korean: native numerals for hours and counted things, Sino-Korean ones for the rest, particles by the last sound."""

from grammar.meaning import Clock, Date, Grammar, Price, Value, words

DIGITS = words("영 일 이 삼 사 오 육 칠 팔 구")
NATIVE_TENS = words("_ 열 스물 서른 마흔 쉰 예순 일흔 여든 아흔")
NATIVE = words("_ 한 두 세 네 다섯 여섯 일곱 여덟 아홉")  # as they stand before a counter
MONTHS = words("_ 일월 이월 삼월 사월 오월 유월 칠월 팔월 구월 시월 십일월 십이월")  # June and October are irregular
PARTS = {"morning": "오전", "afternoon": "오후", "evening": "저녁"}
CURRENCIES = {"dollar": "달러", "euro": "유로"}
PLACES = {
    "berlin": "베를린",
    "paris": "파리",
    "london": "런던",
    "rome": "로마",
    "madrid": "마드리드",
    "lisbon": "리스본",
    "amsterdam": "암스테르담",
    "vienna": "빈",
    "moscow": "모스크바",
    "seoul": "서울",
    "beijing": "베이징",
    "tokyo": "도쿄",
    "new_york": "뉴욕",
    "barcelona": "바르셀로나",
    "airport": "공항",
    "station": "기차역",
    "museum": "박물관",
    "hotel": "호텔",
    "hospital": "병원",
    "bank": "은행",
    "post_office": "우체국",
    "market": "시장",
    "beach": "해변",
    "castle": "성",
    "cathedral": "대성당",
    "university": "대학교",
    "pharmacy": "약국",
}
FRAMES = {
    "number": "{k}.",
    "ordinal": "{o:nth} 번째.",
    "date": "{d}.",
    "time": "{t}.",
    "price": "{p}.",
    "floor": "제 방은 {o} 층에 있습니다.",
    "street": "왼쪽 {o:nth} 번째 길로 가세요.",
    "trip_day": "오늘은 우리 여행의 {o:nth} 번째 날입니다.",
    "chapter": "저는 {o:nth} 번째 장을 읽고 있습니다.",
    "row": "저희 좌석은 {o:nth} 번째 줄에 있습니다.",
    "stop": "{o:nth} 번째 정류장에서 내리세요.",
    "birthday": "오늘은 저의 {o:nth} 번째 생일입니다.",
    "today": "오늘은 {d}입니다.",
    "born": "저는 {d}에 태어났습니다.",
    "concert": "콘서트는 {d}에 열립니다.",
    "arrive": "저희는 {d}에 도착합니다.",
    "full": "호텔은 {d}에 만실입니다.",
    "holiday": "제 휴가는 {d}에 시작됩니다.",
    "tickets": "표 {n:native} 장 주세요.",
    "nights": "저희는 {n} 박 묵고 싶습니다.",
    "table": "{n:native} 명 자리 부탁합니다.",
    "bus_in": "버스는 {n} 분 후에 출발합니다.",
    "from_here": "여기에서 {n} 킬로미터 떨어져 있습니다.",
    "stay": "저는 여기에 {n} 일 동안 머뭅니다.",
    "journey": "여행은 {n:native} 시간 걸립니다.",
    "bottles": "물 {n:native} 병 가져다주세요.",
    "rooms": "저희는 방이 {n:native} 개 필요합니다.",
    "stamps": "저는 우표가 {n:native} 장 필요합니다.",
    "suitcases": "저희는 여행 가방이 {n:native} 개 있습니다.",
    "my_room": "제 방 번호는 {k}입니다.",
    "gate": "{k} 번 게이트로 가 주세요.",
    "platform": "기차는 {k} 번 승강장에서 출발합니다.",
    "take_bus": "{k} 번 버스를 타세요.",
    "my_seat": "제 좌석 번호는 {k}입니다.",
    "page": "책의 {k} 쪽을 펴 주세요.",
    "flight": "{k} 편 항공기가 지연되었습니다.",
    "exit": "{k} 번 출구로 나가 주세요.",
    "code": "코드는 {k}입니다.",
    "order": "주문 번호는 {k}입니다.",
    "it_is": "지금은 {t}입니다.",
    "train_at": "기차는 {t}에 출발합니다.",
    "wake": "{t}에 깨워 주세요.",
    "opens": "박물관은 {t}에 문을 엽니다.",
    "closes": "은행은 {t}에 문을 닫습니다.",
    "breakfast": "아침 식사는 {t}에 시작됩니다.",
    "meet_at": "{t}에 만납시다.",
    "our_flight": "저희 비행기는 {t}에 도착합니다.",
    "taxi_at": "{t}에 택시가 필요합니다.",
    "ticket_costs": "표는 {p}입니다.",
    "that_is": "전부 {p}입니다.",
    "only_have": "저는 {p}밖에 없습니다.",
    "per_night": "방은 하룻밤에 {p}입니다.",
    "paid": "저는 그 책값으로 {p}를 냈습니다.",  # 달러, 유로, 센트 all end in a vowel
    "dinner": "저녁 식사는 {p}입니다.",
    "where": "{l:topic} 어디에 있습니까?",
    "go_to": "저는 {x}에 가고 싶습니다.",
    "how_far": "{x}까지 얼마나 멉니까?",
    "get_to": "{x}에 어떻게 갑니까?",
    "closed": "{l:topic} 오늘 문을 닫았습니다.",
    "brother": "제 남동생은 {c}에 살고 있습니다.",
    "taxi_to": "{x}까지 가는 택시 부탁합니다.",
    "bus_to": "이 버스는 {x}에 갑니다.",
    "waiting": "저는 {l}에서 기다리고 있습니다.",
    "train_to_at": "{c}행 기차는 {t}에 출발합니다.",
    "ticket_to_costs": "{c}행 표는 {p}입니다.",
    "tickets_to": "{c}행 표 {n:native} 장 주세요.",
    "flight_from": "{c}에서 오는 비행기는 {t}에 도착합니다.",
    "train_to_platform": "{c}행 기차는 {k} 번 승강장에서 출발합니다.",
    "taxi_costs": "{l}까지 택시비는 {p}입니다.",
    "room_costs": "{k} 호실은 {p}입니다.",
    "kilometers_to": "{x}까지 {n} 킬로미터입니다.",
    "bus_to_in": "{x}행 버스는 {n} 분 후에 출발합니다.",
}


def say(value: Value, form: str) -> str:
    """The words for a value. Forms: of a number "" (Sino-Korean), "native" or "nth"; of a place "" or "topic"."""
    match value:
        case int():
            return native(value, first="첫" if form == "nth" else "한") if form else sino(value)
        case Clock():
            return clock(value)
        case Date():
            said = f"{MONTHS[value.month]} {sino(value.day)} 일"
            return said if value.year is None else f"{sino(value.year)} 년 {said}"
        case Price():
            said = f"{sino(value.amount)} {CURRENCIES[value.currency]}"
            return said + (f" {sino(value.cents)} 센트" if value.cents else "")
        case str():
            return PLACES[value] + (_topic(PLACES[value]) if form == "topic" else "")


def sino(number: int) -> str:
    """0 to 9999: 1984 is "천구백팔십사"."""
    if number == 0:
        return DIGITS[0]
    said = ""
    for size, name in ((1000, "천"), (100, "백"), (10, "십"), (1, "")):
        digit = number // size % 10
        if digit:
            said += (DIGITS[digit] if digit > 1 or size == 1 else "") + name
    return said


def native(number: int, first: str = "한") -> str:
    """1 to 99 before a counter: 20 is "스무", 42 "마흔두"; 100 is "백". `first` is what stands for 1 alone."""
    if number == 1:
        return first
    if number == 20:
        return "스무"
    if number >= 100:
        return sino(number)
    tens, ones = divmod(number, 10)
    return (NATIVE_TENS[tens] if tens else "") + (NATIVE[ones] if ones else "")


def _topic(word: str) -> str:
    """The particle 은 after a consonant, 는 after a vowel: a Hangul syllable has 28 ends, none the first of them."""
    return "은" if (ord(word[-1]) - 0xAC00) % 28 else "는"


def clock(time: Clock) -> str:
    """As "저녁 여덟 시 반", "일곱 시 사십이 분"; a quarter is fifteen minutes."""
    said = f"{native(time.hour)} 시"
    if time.quarters and time.minute == 30:
        said += " 반"
    elif time.minute:
        said += f" {sino(time.minute)} 분"
    return said if time.part is None else f"{PARTS[time.part]} {said}"


GRAMMAR = Grammar(FRAMES, say)

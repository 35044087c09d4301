"""Chinese: 零 between the parts of a number, 两 before measure words, years digit by digit."""

from grammar.meaning import Clock, Date, Grammar, Price, Value

DIGITS = "零一二三四五六七八九"
PARTS = {"morning": "早上", "afternoon": "下午", "evening": "晚上"}
CURRENCIES = {"dollar": ("美元", "美分"), "euro": ("欧元", "欧分")}
PLACES = {
    "berlin": "柏林",
    "paris": "巴黎",
    "london": "伦敦",
    "rome": "罗马",
    "madrid": "马德里",
    "lisbon": "里斯本",
    "amsterdam": "阿姆斯特丹",
    "vienna": "维也纳",
    "moscow": "莫斯科",
    "seoul": "首尔",
    "beijing": "北京",
    "tokyo": "东京",
    "new_york": "纽约",
    "barcelona": "巴塞罗那",
    "airport": "机场",
    "station": "火车站",
    "museum": "博物馆",
    "hotel": "酒店",
    "hospital": "医院",
    "bank": "银行",
    "post_office": "邮局",
    "market": "市场",
    "beach": "海滩",
    "castle": "城堡",
    "cathedral": "大教堂",
    "university": "大学",
    "pharmacy": "药店",
}
FRAMES = {
    "number": "{k}。",
    "ordinal": "第{o}。",
    "date": "{d}。",
    "time": "{t}。",
    "price": "{p}。",
    "floor": "我的房间在{o}楼。",
    "street": "请走左边第{o}条街。",
    "trip_day": "今天是我们旅行的第{o}天。",
    "chapter": "我在读第{o}章。",
    "row": "我们的座位在第{o}排。",
    "stop": "请在第{o}站下车。",
    "birthday": "今天是我的第{o}个生日。",
    "today": "今天是{d}。",
    "born": "我出生于{d}。",
    "concert": "音乐会在{d}举行。",
    "arrive": "我们{d}到达。",
    "full": "酒店{d}客满。",
    "holiday": "我的假期从{d}开始。",
    "tickets": "请给我{n:count}张票。",
    "nights": "我们想住{n:count}晚。",
    "table": "请给我们一张{n:count}人的桌子。",
    "bus_in": "公交车{n:count}分钟后出发。",
    "from_here": "离这里有{n:count}公里。",
    "stay": "我要在这里待{n:count}天。",
    "journey": "路程需要{n:count}个小时。",
    "bottles": "请给我们拿{n:count}瓶水。",
    "rooms": "我们需要{n:count}个房间。",
    "stamps": "我需要{n:count}张邮票。",
    "suitcases": "我们有{n:count}个行李箱。",
    "my_room": "我的房间号是{k}。",
    "gate": "请前往{k}号登机口。",
    "platform": "火车从{k}号站台出发。",
    "take_bus": "请乘坐{k}路公交车。",
    "my_seat": "我的座位号是{k}。",
    "page": "请把书翻到第{k}页。",
    "flight": "{k}号航班延误了。",
    "exit": "请走{k}号出口。",
    "code": "密码是{k}。",
    "order": "您的订单号是{k}。",
    "it_is": "现在是{t}。",
    "train_at": "火车{t}出发。",
    "wake": "请在{t}叫醒我。",
    "opens": "博物馆{t}开门。",
    "closes": "银行{t}关门。",
    "breakfast": "早餐{t}开始。",
    "meet_at": "我们{t}见面吧。",
    "our_flight": "我们的航班{t}到达。",
    "taxi_at": "我{t}需要一辆出租车。",
    "ticket_costs": "这张票要{p}。",
    "that_is": "一共{p}。",
    "only_have": "我只有{p}。",
    "per_night": "房间每晚{p}。",
    "paid": "我买这本书花了{p}。",
    "dinner": "晚餐要{p}。",
    "where": "{l}在哪里？",
    "go_to": "我想去{x}。",
    "how_far": "到{x}有多远？",
    "get_to": "我怎么去{x}？",
    "closed": "{l}今天不开放。",
    "brother": "我哥哥住在{c}。",
    "taxi_to": "请叫一辆去{x}的出租车。",
    "bus_to": "这辆公交车去{x}。",
    "waiting": "我正在{l}等候。",
    "train_to_at": "去{c}的火车{t}出发。",
    "ticket_to_costs": "一张去{c}的票要{p}。",
    "tickets_to": "请给我{n:count}张去{c}的票。",
    "flight_from": "从{c}来的航班{t}到达。",
    "train_to_platform": "去{c}的火车从{k}号站台出发。",
    "taxi_costs": "去{l}的出租车要{p}。",
    "room_costs": "{k}号房间要{p}。",
    "kilometers_to": "到{x}有{n:count}公里。",
    "bus_to_in": "去{x}的公交车{n:count}分钟后出发。",
}


def say(value: Value, form: str) -> str:
    """The words for a value. Forms: of a number "" or "count" before a measure word."""
    match value:
        case int():
            return counted(value) if form == "count" else cardinal(value)
        case Clock():
            return clock(value)
        case Date():
            said = f"{cardinal(value.month)}月{cardinal(value.day)}日"
            return said if value.year is None else f"{''.join(DIGITS[int(digit)] for digit in str(value.year))}年{said}"
        case Price():
            whole, hundredth = CURRENCIES[value.currency]
            return counted(value.amount) + whole + (counted(value.cents) + hundredth if value.cents else "")
        case str():
            return PLACES[value]


def cardinal(number: int) -> str:
    """0 to 9999: 12 is 十二, 112 一百一十二, 2005 两千零五."""
    if number < 10:
        return DIGITS[number]
    said, missing = "", False
    for size, name in ((1000, "千"), (100, "百"), (10, "十"), (1, "")):
        digit = number // size % 10
        if digit == 0:
            missing = True  # one 零 for any number of zeros, and none at the end
            continue
        said += "零" if missing and said else ""
        said += "两" if size == 1000 and digit == 2 else "" if 10 <= number < 20 and size == 10 else DIGITS[digit]
        said += name
        missing = False
    return said


def counted(number: int) -> str:
    """As `cardinal`, before a measure word: 2 is 两."""
    return "两" if number == 2 else cardinal(number)


def clock(time: Clock) -> str:
    """七点半, 晚上八点一刻, 七点零五分; a quarter to eight is 七点三刻."""
    said = f"{counted(time.hour)}点"
    if time.quarters:
        said += {15: "一刻", 30: "半", 45: "三刻"}[time.minute]
    elif time.minute:
        said += f"{'零' if time.minute < 10 else ''}{cardinal(time.minute)}分"
    return said if time.part is None else PARTS[time.part] + said


GRAMMAR = Grammar(FRAMES, say)

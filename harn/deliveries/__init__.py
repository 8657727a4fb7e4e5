"""Operations on deliveries: lists, the timeline of one delivery, groups of dead letters, fixtures, replays."""

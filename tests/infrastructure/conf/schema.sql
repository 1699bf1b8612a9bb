-- Bootstrapping runs without grants until they are read.
FLUSH PRIVILEGES;
CREATE DATABASE shop;
CREATE TABLE shop.orders (
    id INT NOT NULL AUTO_INCREMENT PRIMARY KEY,
    note VARCHAR(64) NOT NULL,
    made TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP
) ENGINE = InnoDB;
CREATE TABLE shop.products (id INT NOT NULL PRIMARY KEY, name VARCHAR(64) NOT NULL) ENGINE = InnoDB;
INSERT INTO shop.products
    WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 100)
    SELECT n, CONCAT('product ', n) FROM numbers;
CREATE USER 'shop'@'%' IDENTIFIED BY 'shop';
GRANT SELECT, INSERT ON shop.* TO 'shop'@'%';
CREATE USER 'repl'@'10.77.0.%' IDENTIFIED BY 'repl';
GRANT REPLICATION SLAVE ON *.* TO 'repl'@'10.77.0.%';
-- The agent, known by its user on the host: it may look at replication and at nothing else.
CREATE USER 'watchpost'@'localhost' IDENTIFIED VIA unix_socket;
GRANT REPLICA MONITOR, BINLOG MONITOR ON *.* TO 'watchpost'@'localhost';
